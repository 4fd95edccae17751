"""Training: one step, the plan of its turns, its state and log, and the loop around it."""
