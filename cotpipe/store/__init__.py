"""The store: artifacts and their records, on disk or S3, with leases and training states.

It is independent of pipeline steps and row types.
"""
