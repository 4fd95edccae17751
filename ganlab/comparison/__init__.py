"""Comparisons of systems over several seeds: trials, their processes, statistics, tables."""
