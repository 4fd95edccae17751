"""Images: read once, kept as uint8, drawn by number."""
