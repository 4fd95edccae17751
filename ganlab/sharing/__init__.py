"""Makes shared models of trained runs and of other programs' checkpoints."""
