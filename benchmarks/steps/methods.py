"""The adapters whose steps are measured. Loads nothing, so that a script can be asked for `--help` anywhere."""

METHODS = ("lora", "qlora", "qlora-once")
"""`qlora-once`: the base is dequantised when it is loaded (`tuner.dequantise: once`), and in 4 bits no more."""
