"""Folders of the repository."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DOCS = ROOT / "docs"
EXPERIMENTS = ROOT / "experiments"
INSTALLED = TESTS / "installed"
"""A folder with an installed distribution, `ganlab-trial`. If it is on sys.path, its plugin is found."""
