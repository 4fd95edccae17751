"""Specs: JSON files that describe an experiment, read, merged, checked and resolved to component classes."""
