"""The result of a run: statistics, tables, charts, the written report and its page."""
