"""Commands, options, exit codes, colour. No logic: each command is a few lines that call ``readout``."""
