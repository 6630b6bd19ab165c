"""Table row types, problem sources, and splits."""
