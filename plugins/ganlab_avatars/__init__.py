"""A dataset without a download: avatars that DiceBear draws in the styles of many illustrators.

Two styles make two unpaired domains of comic faces. The style definitions come from the package `dicebear-styles`; each
has its illustrator's own licence. ATTRIBUTION.md has the credits of the styles in `PAIR`; `attribution` writes the
credits of any styles.
"""

from __future__ import annotations

import functools
import io
import json
import threading
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.resources import files
from typing import Annotated, Any, Literal

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from PIL import Image
from pydantic import Field

import ganlab

PAIR = ("big-ears", "pixel-art")
"""The styles of the default domains "a" and "b"."""

SKIN = {"pale": "#f7d3ae", "sand": "#e6ac7b", "tan": "#bf8150", "brown": "#93603c", "dark": "#6b4530"}
"""{name: colour} of the skin in portraits of every style."""

HAIR = {"black": "#1f1a1a", "brown": "#4a2413", "red": "#cf4a1b", "blond": "#ecc653", "grey": "#b4b4ba"}
"""{name: colour} of the hair in portraits. Each colour contrasts with every skin, so that an edge remains."""

_WHITE = "#ffffff"

# the parts that portraits leave out, by the names that styles give them
_WORN = {
    "accessories",
    "beard",
    "details",
    "earrings",
    "facialHair",
    "glasses",
    "hairAccessories",
    "hat",
    "mask",
    "mustache",
}

# options of dicebear, shifts in per cent of the image. They bring the chin to 9/10 of the height and the eyes to 6/10.
# pixel-art is shifted by 3 of its pixels and not scaled, so that each stays 4x4 pixels in an image of 64x64
_FRAMES: dict[str, dict[str, float]] = {
    "adventurer": {"scale": 1.2, "translateY": 3},
    "big-ears": {"scale": 1.1, "translateY": -2},
    "dylan": {"translateY": 9},
    "personas": {"scale": 1.4, "translateY": 14},
    "pixel-art": {"translateY": 18.75},
    "toon-head": {"scale": 1.2, "translateY": 6},
    "voxel-art": {"scale": 1.5, "translateY": 20},
}

# a Style builds parts of itself at first use, which is not thread-safe
_DRAWING = threading.Lock()


@functools.cache
def _styles() -> list[str]:
    names = (entry.name for entry in files("dicebear_styles").iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _choices(option: dict[str, Any]) -> None:
    """Adds the styles to the JSON Schema of the option `style`."""
    option["enum"] = _styles()


class Avatars(ganlab.Source):
    """Avatars in one style of dicebear-styles. A key is the random seed of its avatar; the domains share no key.

    Styles with few parts (dylan) sometimes repeat an image; the styles in `PAIR` practically never do. No fonts are
    used: styles that draw letters (initials, initial-face) are drawn without them. Transparent parts become white.

    Raises ValueError if the style does not exist.

    Args:
        style: a style of dicebear-styles, such as "big-ears" or "pixel-art".
        count: the number of images of each domain.
        look: "portrait" makes styles differ only in how a face is drawn: colours come from `HAIR` and `SKIN`; glasses,
            hats, beards and translucent white over the skin are left out; some styles are moved and scaled so that
            the heads match. A style without a skin colour is not changed. "style" leaves everything to the illustrator.
        labels: the class of an image is the index of its colour in `HAIR` ("hair_color") or `SKIN` ("skin_color");
            "none" gives no classes.
    """

    def __init__(
        self,
        style: Annotated[str, Field(json_schema_extra=_choices)],
        count: Annotated[int, Field(ge=2, le=10**6)] = 2000,
        look: Literal["portrait", "style"] = "portrait",
        labels: Literal["none", "hair_color", "skin_color"] = "none",
    ) -> None:
        known = _styles()
        if style not in known:
            close = get_close_matches(style, known, n=1, cutoff=0)
            raise ValueError(
                f"there is no avatar style {style!r}; did you mean {close[0]!r}? "
                f"The choices are the styles of dicebear-styles: {', '.join(known)}"
            )
        self._style = _load(style, look)
        self._frame = _FRAMES.get(style, {}) if look == "portrait" else {}
        self._count = count
        self._labels = labels
        self._classes = list({"none": {}, "hair_color": HAIR, "skin_color": SKIN}[labels].values())
        self.classes = len(self._classes)
        self._chosen: dict[str, dict[str, str]] = {}

    def keys(self, domain: str) -> list[str]:
        """Returns "a-00000", "a-00001", ... for domain "a"."""
        return [f"{domain}-{index:05d}" for index in range(self._count)]

    def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the avatar as (size, size, 3)."""
        avatar = self._draw(key)
        # an evaluation asks for them later, and drawing takes most of the time
        self._chosen[key] = self._choices(avatar)
        # fonts differ between machines, and resvg would search for them for every image
        png = resvg_py.svg_to_bytes(
            svg_string=avatar.to_string(),
            width=size,
            height=size,
            background=_WHITE,
            skip_system_fonts=True,
        )
        with Image.open(io.BytesIO(png)) as picture:
            return np.array(picture.convert("RGB"))

    def label(self, key: str) -> int:
        """Returns the index of the avatar's colour. Raises ValueError if the colour is none of a portrait's."""
        color = self.attributes(key).get(self._labels)
        if color not in self._classes:
            raise ValueError(f"{key} has the {self._labels} {color}; a label is one of {', '.join(self._classes)}")
        return self._classes.index(color)

    def attributes(self, key: str) -> dict[str, str]:
        """Returns what DiceBear chose: {"hair": "long04", "hair_color": "#cf4a1b", "glasses": "none", ...}.

        A part has the name of its variant, or "none". Colours are "#rrggbb"; only colours that are drawn are included.
        """
        if key not in self._chosen:
            self._chosen[key] = self._choices(self._draw(key))
        return dict(self._chosen[key])

    def _choices(self, drawn: Avatar) -> dict[str, str]:
        avatar = drawn.to_json()
        chosen = avatar["options"]
        parts = {name: chosen.get(f"{name}Variant", "none") for name in self._style.components()}
        colors = {f"{name}_color": chosen.get(f"{name}Color", [""])[0] for name in self._style.colors()}
        # dicebear also chooses colours that it only contrasts with others and never draws
        return parts | {name: color for name, color in colors.items() if f'"{color}"' in avatar["svg"]}

    def credits(self) -> str:
        """Returns the credits that the style's illustrator asks for, and what is changed."""
        asked = " ".join((self._style.meta().license().text() or "").split())
        changed = "Drawn by DiceBear; ganlab may change colours, leave out what is worn, and move the head."
        return f"{asked}. {changed}" if asked else changed

    def _draw(self, seed: str) -> Avatar:
        with _DRAWING:
            return Avatar(self._style, {**self._frame, "seed": seed})


def attribution(styles: Iterable[str] = PAIR) -> str:
    """Returns the credits of styles as Markdown, from the styles' own metadata."""
    sections = [
        "# Attribution\n\n"
        "The avatars are drawn by dicebear-core from the style definitions in dicebear-styles, which carry these "
        "credits.\nganlab draws them at a small size on white; in portraits it also replaces the colours of hair and "
        "skin, leaves\nout what is worn and moves or enlarges the head.\n"
    ]
    for name in styles:
        meta = _load(name, "style").meta()
        sections.append(
            f"## {name}\n\n"
            f"- Creator: {_link(meta.creator().name(), meta.creator().url())}\n"
            f"- Source: {_link(meta.source().name(), meta.source().url())}\n"
            f"- Licence: {_link(meta.license().name(), meta.license().url())}\n\n"
            f"{meta.license().text()}\n"
        )
    return "\n".join(sections)


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"avatars": Avatars}


@functools.cache
def _load(style: str, look: Literal["portrait", "style"]) -> Style:
    definition = json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))
    colors = definition.get("colors", {})
    if look == "portrait" and "skin" in colors:
        # not by dicebear's options: it validates them for every image, which takes longer than the drawing
        palettes = {"hair": HAIR.values(), "facialHair": HAIR.values(), "skin": SKIN.values(), "background": [_WHITE]}
        for name in palettes.keys() & colors.keys():
            colors[name]["values"] = list(palettes[name])
        for name in definition["components"].keys() & _WORN:
            definition["components"][name]["probability"] = 0
        # pixel-art lightens faces, so that their colour would be none of `SKIN`
        canvas = definition["canvas"]
        canvas["elements"] = [element for element in canvas["elements"] if not _lightens(element)]
    return Style(definition)


def _lightens(element: dict[str, Any]) -> bool:
    attributes = element.get("attributes", {})
    return attributes.get("fill") == "white" and "fill-opacity" in attributes


def _link(name: str | None, url: str | None) -> str:
    return f"[{name}]({url})" if url else f"{name}"
