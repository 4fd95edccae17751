"""Folders of small pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.systems import SIZE


def draw(folder: Path, count: int = 12) -> dict[str, Path]:
    """Returns {domain: a new folder of `count` pictures of noise}."""
    folders = {}
    for index, domain in enumerate("ab"):
        folders[domain] = folder / f"pictures-{domain}"
        folders[domain].mkdir(parents=True)
        random = np.random.default_rng(index)
        for number in range(count):
            pixels = random.integers(0, 256, (SIZE + 4, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folders[domain] / f"{number:02}.png")
    return folders


def add_special_files(folder: Path) -> set[str]:
    """Adds a pipe and a link to an endless device, if the system has them. Returns the names of what it added."""
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
    if os.path.exists("/dev/zero"):
        (folder / "endless.png").symlink_to("/dev/zero")
    return {path.name for path in folder.iterdir()} & {"pipe.png", "endless.png"}


def names(folder: Path) -> list[str]:
    """The names in a folder, sorted; of one that does not exist, none."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
