"""Draws the sample grids of a run."""
