"""The pipeline's steps: each reads artifacts and writes one."""
