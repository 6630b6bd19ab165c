"""The result of a run: statistics, tables, pictures, the written report."""
