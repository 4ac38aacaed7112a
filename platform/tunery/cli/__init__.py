"""The command line: one file a command. See `tunery.cli.app` for how a command is added."""
