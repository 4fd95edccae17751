"""A small dataset, written by the library `datasets` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

ANIMALS = ("cat", "dog", "owl")

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def rows() -> list[dict[str, Any]]:
    """Returns a dozen rows with pictures of 20x16 pixels (width, height) as arrays."""
    random = np.random.default_rng(0)
    return [
        {
            "photo": random.integers(0, 256, (16, 20, 3), dtype=np.uint8),
            "animal": number % 3,
            "hair": (None, "black", "red", "red")[number % 4],
            "age": number,
            "wild": number % 2 == 0,
        }
        for number in range(12)
    ]


def dataset() -> datasets.Dataset:
    """Returns those rows as a dataset, with their pictures as PNG files."""
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "animal": datasets.ClassLabel(names=[*ANIMALS]),
            "hair": datasets.Value("string"),
            "age": datasets.Value("int64"),
            "wild": datasets.Value("bool"),
        }
    )
    pictured = [{**row, "photo": Image.fromarray(row["photo"])} for row in rows()]
    return datasets.Dataset.from_list(pictured, features=features)


def write_dataset(folder: Path) -> None:
    """Writes it with its own `save_to_disk`; the column of pictures is named "image"."""
    dataset().rename_column("photo", "image").save_to_disk(folder)
