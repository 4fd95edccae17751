"""A spec built: networks, losses and schedule, the cache of their forwards, and the checks before training."""
