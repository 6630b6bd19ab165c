"""Prefect flows and the `cotpipe` command."""
