"""The training data: image sources are read once into memory, and batches are drawn by number."""
