"""Training with TRL, in a separate process."""
