"""Images of a Hugging Face dataset, from the hub or from a folder (`pip install 'ganlab[datasets]'`)."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

import ganlab
from ganlab.data.folder import fitted, pixels
from ganlab.data.image_files import FORMATS, picture, upright_rgb
from ganlab.data.labels import Classes
from ganlab.errors import one_line
from ganlab.files import home_expanded

HUB = "https://huggingface.co/datasets/"

_SAVED = ("dataset_info.json", "dataset_dict.json")
"""The files by which `save_to_disk` of a dataset, or of several splits, is told from other folders."""


class HuggingFace(ganlab.Source):
    """The images of a Hugging Face dataset. A key is the number of a row.

    The dataset is loaded whole, without streaming; one of the hub is downloaded at first use and kept in the library's
    cache. The largest centred square of an image is resized as `folder` does it. Other columns with text, numbers,
    truth values or classes are attributes of the images.

    Args:
        dataset: the name of a dataset on the hub, "owner/name".
        path: a folder instead: one that `save_to_disk` has written, or with the data files of a dataset.
        config: the configuration, if the dataset has several.
        split: the split, or a part of it, as `load_dataset` understands it: "train", "train[:10%]".
        revision: the version on the hub: a branch, a tag or the hash of a commit. The default is the newest.
        image: the column with the images.
        channels: 3 (RGB) or 1 (grey).
        labels: the column whose values are the images' classes. By default there are no classes.
        classes: the values that become classes 0, 1, ...; images without one of them are left out.

    Raises ValueError unless exactly one of `dataset` and `path` is given, or if one of `labels` and `classes` is
    missing.
    """

    def __init__(
        self,
        dataset: str | None = None,
        path: Path | None = None,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        image: str = "image",
        channels: Literal[1, 3] = 3,
        labels: str | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        if (dataset is None) == (path is None):
            raise ValueError("give either dataset, a name on the hub, or path, a folder")
        if path is not None and revision is not None:
            raise ValueError(f"revision is {revision!r}, and a folder has no revisions")
        self.channels = channels
        self._dataset = dataset
        self._path = None if path is None else home_expanded(path)
        self._config = config
        self._split = split
        self._revision = revision
        self._image = image
        self._classes = Classes(labels, classes)
        self.classes = len(self._classes)

    def keys(self, domain: str) -> list[str]:
        """Returns "0000", "0001", ..., all as long as the last row's."""
        count = len(self._images)
        keys = [f"{row:0{len(str(count - 1))}d}" for row in range(count)]
        if self.classes:
            self._classes.check(f"data.{domain}", self._labelled)
            keys = [key for key, label in zip(keys, self._labelled, strict=True) if self._classes.of(label) is not None]
        return keys

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the image as (size, size, channels). Raises ValueError if it can't be read."""
        stored = self._images[int(key)][self._image]
        if stored is None:
            raise ValueError("the row has no image")
        return pixels(fitted(_decoded(stored), size), self.channels)

    def label(self, key: str) -> int:
        found = self._classes.of(self._labelled[int(key)])
        if found is None:
            raise ValueError(f"row {key} has none of the classes {', '.join(self._classes.values)}")
        return found

    def attributes(self, key: str) -> dict[str, str]:
        """Returns {column: value}, without columns that are empty in this row."""
        # a dataset without columns has no rows
        row = self._facts[int(key)] if self._facts.column_names else {}
        return {name: text for name, value in row.items() if (text := self._text(name, value)) is not None}

    def credits(self) -> str:
        if self._dataset is None:
            return ""
        return f"the dataset {self._dataset}, {HUB}{self._dataset}; that page names its makers and its licence"

    @functools.cached_property
    def _whole(self) -> Any:
        """The dataset, checked. Raises SpecError if it can't be loaded or lacks a column."""
        found = self._loaded()
        columns = ", ".join(found.features)
        kind = found.features.get(self._image)
        if type(kind).__name__ != "Image":
            raise ganlab.SpecError(
                f"the source 'huggingface': {self._named} has no images in the column {self._image!r}; its columns are:"
                f" {columns}"
            )
        if self._classes.attribute is not None and self._classes.attribute not in self._scalar(found):
            raise ganlab.SpecError(
                f"the source 'huggingface': {self._named} has no labels in the column {self._classes.attribute!r}; its"
                f" columns are: {columns}"
            )
        return found

    @functools.cached_property
    def _images(self) -> Any:
        """The column of images, as bytes."""
        whole = self._whole.select_columns([self._image])
        return whole.cast_column(self._image, type(whole.features[self._image])(decode=False))

    @functools.cached_property
    def _facts(self) -> Any:
        """The columns of attributes."""
        return self._whole.select_columns(self._scalar(self._whole))

    @functools.cached_property
    def _labelled(self) -> list[dict[str, str]]:
        """{labels: value} of each row; {} for a row without a value."""
        name = self._classes.attribute or ""
        texts = [self._text(name, value) for value in self._whole.select_columns([name])[:][name]]
        return [{} if text is None else {name: text} for text in texts]

    def _loaded(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise ganlab.SpecError(
                "the source 'huggingface' needs the package datasets; pip install 'ganlab[datasets]'"
            ) from error
        try:
            if self._path is None:
                return datasets.load_dataset(self._dataset, self._config, split=self._split, revision=self._revision)
            if not any((self._path / name).is_file() for name in _SAVED):
                return datasets.load_dataset(str(self._path), self._config, split=self._split)
            saved = datasets.load_from_disk(str(self._path))
        except ConnectionError as error:
            raise ganlab.SpecError(
                f"the source 'huggingface' can't load {self._named}: it is not in the cache of this machine, and the"
                f" hub can't be reached ({one_line(error)}); load it once where there is a network, or set the option"
                " `path` to a folder that has it"
            ) from error
        # the library raises many other errors
        except Exception as error:
            raise ganlab.SpecError(
                f"the source 'huggingface' can't load {self._named} ({type(error).__name__}: {one_line(error)})"
            ) from error
        splits = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
        if self._split not in splits:
            raise ganlab.SpecError(
                f"the source 'huggingface' can't load {self._named}: the folder has the splits {', '.join(splits)}"
            )
        return splits[self._split]

    @property
    def _named(self) -> str:
        return f"split {self._split!r} of {self._dataset or self._path}"

    @staticmethod
    def _scalar(whole: Any) -> list[str]:
        """Returns the columns with one text, number, truth value or class in each row."""
        return [name for name, kind in whole.features.items() if type(kind).__name__ in ("Value", "ClassLabel")]

    def _text(self, name: str, value: Any) -> str | None:
        if value is None or isinstance(value, bytes):
            return None
        kind = self._whole.features[name]
        if type(kind).__name__ == "ClassLabel":
            return str(kind.int2str(value)) if value >= 0 else None
        return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(stored: dict[str, Any]) -> Image.Image:
    """Returns the picture {"bytes", "path"} of a row. Raises ValueError if it can't be read."""
    if stored["bytes"] is None:
        return picture(Path(stored["path"]))
    # Pillow's decoders raise many other errors than OSError for damaged files
    try:
        with Image.open(io.BytesIO(stored["bytes"]), formats=FORMATS) as opened:
            return upright_rgb(opened)
    except Exception as error:
        raise ValueError(one_line(error) or type(error).__name__) from error


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"huggingface": HuggingFace}
