"""Looks for what would spoil a training in the images of both domains."""
