"""Writes many JPEG files of 178x218 pixels, cut out of three photographs at random places and sizes.

scikit-image ships the photographs. Among many files there are near duplicates, also of images in the other domain.

To measure how long an inspection of 100,000 images takes, and its largest memory:

    python benchmarks/many_pictures.py build/many --count 100000
    /usr/bin/time -v ganlab data inspect build/many/a build/many/b --out build/many/inspection.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, count: int) -> dict[str, Path]:
    """Writes `count` files, half of them for each domain. Returns {domain: its folder}."""
    from skimage import data

    random = np.random.default_rng(0)
    whole = [Image.fromarray(each()) for each in (data.astronaut, data.chelsea, data.coffee)]
    found = {}
    for domain in "ab":
        found[domain] = folder / domain
        found[domain].mkdir(parents=True)
        for number in range(count // 2):
            picture = whole[number % 3]
            share = random.uniform(0.5, 1) * min(picture.width / 178, picture.height / 218)
            width, height = 178 * share, 218 * share
            left, top = random.uniform(0, picture.width - width), random.uniform(0, picture.height - height)
            cut = picture.resize((178, 218), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
            cut.save(found[domain] / f"{number:06}.jpg", quality=90)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--count", type=int, default=100_000, help="the number of files in both domains")
    asked = parser.parse_args()
    write(asked.folder, asked.count)
