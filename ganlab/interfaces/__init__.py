"""The interfaces that a plugin author implements, one module for each."""
