"""The command line: one file for each command, options only."""
