"""The `cotpipe` command, one file per group of commands."""

from flows.cli.main import main

__all__ = ["main"]
