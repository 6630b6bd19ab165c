"""Run records, catalog, model registry, nightly runs, store maintenance, and preflight checks."""
