"""The command line: one file per command, each exposing `command`: flags -> config -> one call."""
