"""The claims, measured: a script a claim (README.md lists them), and in the folders what the scripts share."""
