"""Prefect tasks: one verb each, around the steps of the library."""
