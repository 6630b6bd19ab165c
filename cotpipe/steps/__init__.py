"""The steps of the pipeline: each reads artifacts and writes one."""
