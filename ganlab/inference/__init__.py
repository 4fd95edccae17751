"""Translates pictures with a trained run."""
