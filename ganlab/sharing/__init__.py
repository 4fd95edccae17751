"""Makes folders that can be shared from trained runs, and runs from other programs' checkpoints."""
