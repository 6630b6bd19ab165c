"""What several tests share: one module per subject."""
