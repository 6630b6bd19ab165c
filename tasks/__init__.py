"""Prefect tasks that wrap the steps of the library, one per verb."""
