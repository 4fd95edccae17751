"""Finds near duplicates: perceptual hashes propose pairs of images, and a comparison of their pixels decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import imagehash
import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.ndimage import convolve1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ganlab.data.reading import Progress, silent

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

SIDE = 32
"""The side of the thumbnails whose pixels are compared."""

REDUCED = 96
"""The side to which a picture is reduced, whatever its aspect, before it is hashed. Three times `SIDE`."""

_CUT = 5
_WINDOWS = (
    (0, 0, REDUCED, REDUCED),
    (_CUT, _CUT, REDUCED - _CUT, REDUCED - _CUT),
    *((left, top, left + REDUCED - _CUT, top + REDUCED - _CUT) for left in (0, _CUT) for top in (0, _CUT)),
)
"""The parts of a picture that are hashed: all of it, its centre, and four that lack a twentieth on two sides.

A picture from which up to a tenth is cut off on each axis has nearly the hash of one of these parts of the original."""

VIEWS = len(_WINDOWS) + 1
"""The hashes of a picture: one of each part, and one of the mirrored whole."""

BITS = 144
"""The bits of a hash: the signs of 12 x 12 frequencies."""

CLOSE = 26
"""The most bits in which the hashes of two near duplicates differ.

The hashes of two different portraits differ in at least 28 bits, in all of 19,110 pairs. Those of 99 % of copies differ
in fewer: copies cropped by 2 to 6 % on each side, resized by 0.5 to 1.5, changed in brightness by 10 % and compressed
(JPEG quality 40 to 95)."""

PROPOSED = 5
"""The most pairs for each image whose pixels are compared: those with the closest hashes."""

_BLOCK = 2048


class Pairs(NamedTuple):
    """Pairs of images, and how each pair was compared."""

    first: np.ndarray[Any, np.dtype[np.int64]]
    second: np.ndarray[Any, np.dtype[np.int64]]
    mirrored: np.ndarray[Any, np.dtype[np.bool_]]


def reduced(picture: Image.Image) -> Image.Image:
    """Returns a picture at `REDUCED` x `REDUCED` pixels, stretched."""
    return picture.resize((REDUCED, REDUCED), Image.Resampling.BICUBIC)


def thumbnail(small: Image.Image) -> Bytes:
    """Reduces the result of `reduced` to (SIDE, SIDE, 3)."""
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX))


def hashes(small: Image.Image) -> Bytes:
    """Returns the hashes of a picture, given the result of `reduced`: (VIEWS, BITS / 8), packed bits."""
    grey = small.convert("L")
    views = [*(grey.crop(window) for window in _WINDOWS), ImageOps.mirror(grey)]
    return np.packbits([imagehash.phash(view, 12).hash.ravel() for view in views], axis=1)


def near_duplicates(packed: Bytes, thumbnails: Bytes, progress: Progress = silent) -> tuple[Pairs, int]:
    """Returns the pairs of images that show the same picture, and the most bits in which their hashes may differ.

    A near duplicate may be compressed, resized, mirrored, brighter or darker, or cropped by up to a tenth. The bits are
    `CLOSE`, or fewer if too many images have nearly the same hash.

    Args:
        packed: the hashes of n images, (n, VIEWS, BITS / 8).
        thumbnails: their pixels, (n, SIDE, SIDE, 3).
        progress: shows the progress of the comparison of hashes.
    """
    proposed, bits = _proposed(packed, progress)
    same = [np.zeros(0, bool)]
    for start in range(0, len(proposed.first), 256):
        first, second, mirrored = (column[start : start + 256] for column in proposed)
        one, other = _smooth(thumbnails[first]), _smooth(thumbnails[second])
        one[mirrored] = one[mirrored, :, ::-1]
        same.append(shows_the_same(one, other))
    kept = np.concatenate(same)
    return Pairs(*(column[kept] for column in proposed)), bits


def _proposed(packed: Bytes, progress: Progress) -> tuple[Pairs, int]:
    """Returns the pairs with close hashes, first < second, and the most bits in which they differ.

    Compares every part of every image with the whole of every other: of n images n * n * VIEWS * BITS multiplications,
    as products of matrices of signs. A product of two rows is BITS minus twice the bits in which they differ.
    """
    most, bits = PROPOSED * len(packed), CLOSE
    signs = torch.from_numpy(np.unpackbits(packed, axis=2)).float().mul_(2).sub_(1)
    starts = range(0, len(signs), _BLOCK)
    # two wholes are a pair in one order, mirrored or not
    blocks = [(v, i, j) for v in range(VIEWS) for i in starts for j in starts if j >= i or 0 < v < VIEWS - 1]
    kept = [np.zeros((4, 0), np.int64)]
    for view, top, left in progress(blocks, "blocks of pairs", len(blocks)):
        product = signs[top : top + _BLOCK, view] @ signs[left : left + _BLOCK, 0].T
        row, column = (product >= BITS - 2 * bits).nonzero(as_tuple=True)
        apart = ((BITS - product[row, column]) / 2).round().long()
        found = torch.stack([row + top, column + left, torch.full_like(row, view == VIEWS - 1), apart]).numpy()
        kept.append(found[:, found[0] != found[1]])
        while sum(pairs.shape[1] for pairs in kept) > 2 * most and bits > 0:
            bits -= 2
            kept = [pairs[:, pairs[3] <= bits] for pairs in kept]
    first, second, mirrored, _ = np.concatenate(kept, axis=1)
    # a pair is found once for each part of a picture
    once = np.unique(np.stack([np.minimum(first, second), np.maximum(first, second), mirrored]), axis=1)
    return Pairs(once[0], once[1], once[2].astype(bool)), bits


DIFFERENT = 0.03
"""The largest share of an image's variance that a near duplicate does not explain."""

CHANGED = 0.6
"""The largest difference in a part of the image, relative to the edges there: a shift explains no more."""

_NOISE = 16.0
"""The difference that compression makes in a part without edges, of 255."""

_AXIS = np.linspace(-1, 1, SIDE, dtype=np.float32)


def shows_the_same(one: Floats, other: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Returns (n,): whether two images show the same picture. Both are (n, SIDE, SIDE, 3), 0 to 255, smoothed.

    One image is shifted, stretched and made brighter or darker until it fits the other best. What remains must be small
    overall, and nowhere larger than what a small shift of the edges there explains: so drawings that differ in the
    mouth alone are two pictures. The one that is cropped may be the first or the second, so both are tried.
    """
    unexplained, changed = _differences(one, other)
    same: np.ndarray[Any, np.dtype[np.bool_]] = (unexplained <= DIFFERENT) & (changed <= CHANGED)
    again = ~same & (unexplained <= 4 * DIFFERENT)
    if again.any():
        unexplained, changed = _differences(other[again], one[again])
        same[again] = (unexplained <= DIFFERENT) & (changed <= CHANGED)
    return same


def _differences(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Returns what remains after `one` was fitted to `other`: the share of the variance, and the largest difference in
    a part of the image relative to the edges there, each (n,)."""
    warped, inside = _registered(one, other)
    values = inside.sum((1, 2, 3)) * 3
    known = inside * _unclipped(warped) * _unclipped(other)
    enough = known.sum((1, 2, 3), keepdims=True) > SIDE * SIDE / 16
    gain, offset = _brightness(warped, other, np.where(enough, known, inside))
    rest = (other - (gain * warped + offset).clip(0, 255)) * inside
    mean = (other * inside).sum((1, 2, 3), keepdims=True) / values[:, None, None, None]
    variance = (((other - mean) * inside) ** 2).sum((1, 2, 3)) / values
    unexplained = (rest**2).sum((1, 2, 3)) / values / np.maximum(variance, 1)
    slopes = [*_slopes(warped), *_slopes(other)]
    edges: Floats = np.square(slopes).sum(0) / 2
    changed = np.sqrt(_in_blocks(rest**2) / (_NOISE**2 + _in_blocks(edges * inside))).max((1, 2))
    return unexplained, changed


def _registered(one: Floats, other: Floats, steps: int = 3) -> tuple[Floats, Floats]:
    """Shifts and stretches `one` until it fits `other`. Returns it, and (n, SIDE, SIDE, 1): 1 where it has pixels.

    Gauss-Newton steps on the grey images (Lucas and Kanade, "An iterative image registration technique", 1981): the
    other image is a sum of a constant, the image, its slopes, and its slopes times the place.
    """
    grey, wanted = one.mean(-1), other.mean(-1)
    count, half = len(one), (SIDE - 1) / 2
    # of the y axis and of the x axis
    scale, shift = np.ones((2, count), np.float32), np.zeros((2, count), np.float32)
    for _ in range(steps):
        (down, in_y), (right, in_x) = (_resampling(*axis) for axis in zip(scale, shift, strict=True))
        warped = down @ grey @ right.transpose(0, 2, 1)
        y, x = (half * slope for slope in _slopes(warped))
        columns = np.stack([np.ones_like(warped), warped, y, x, y * _AXIS[:, None], x * _AXIS], 1)
        columns = (columns * (in_y[:, :, None] * in_x[:, None, :])[:, None]).reshape(count, 6, -1)
        square = columns @ columns.transpose(0, 2, 1)
        # an image of one colour has no slopes
        square += 1e-6 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(6, dtype=np.float32)
        found = np.linalg.solve(square, columns @ wanted.reshape(count, -1, 1))[..., 0]
        step = (found[:, 2:] / np.maximum(found[:, 1:2], 0.3)).clip(-0.12, 0.12).T
        shift = (shift + scale * step[:2]).clip(-0.25, 0.25)
        scale = (scale * (1 + step[2:])).clip(0.8, 1.25)
    (down, in_y), (right, in_x) = (_resampling(*axis) for axis in zip(scale, shift, strict=True))
    warped = np.stack([down @ one[..., c] @ right.transpose(0, 2, 1) for c in range(3)], -1)
    return warped, (in_y[:, :, None] * in_x[:, None, :])[..., None]


def _resampling(scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Returns the matrices (n, SIDE, SIDE) of linear interpolation at `scale` * place + `shift`, with places from -1
    to 1, and (n, SIDE): 1 where that is inside the image."""
    places = (scale[:, None] * _AXIS + shift[:, None] + 1) * ((SIDE - 1) / 2)
    inside = (places > -0.25) & (places < SIDE - 0.75)
    apart: Floats = np.abs(places.clip(0, SIDE - 1)[..., None] - np.arange(SIDE, dtype=np.float32))
    return np.maximum(0, 1 - apart), inside.astype(np.float32)


def _brightness(one: Floats, other: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Returns the gain and the offset, (n, 1, 1, 1) each, that bring `one` closest to `other`."""
    total = 3 * weights.sum((1, 2, 3), keepdims=True)
    mean: Floats = (weights * one).sum((1, 2, 3), keepdims=True) / total
    wanted: Floats = (weights * other).sum((1, 2, 3), keepdims=True) / total
    apart = weights * (one - mean)
    together = (apart * (other - wanted)).sum((1, 2, 3), keepdims=True)
    gain: Floats = together / np.maximum((apart * (one - mean)).sum((1, 2, 3), keepdims=True), 1)
    return gain, wanted - gain * mean


def _unclipped(images: Floats) -> Floats:
    """Returns (n, SIDE, SIDE, 1): 1 where no channel is black or white, and so brightness is known."""
    between = (images > 3) & (images < 252)
    return np.asarray(between.all(-1, keepdims=True), np.float32)


def _slopes(images: Floats) -> tuple[Floats, Floats]:
    """Returns the derivatives along y and x, for one pixel; 0 at the ends."""
    y, x = np.zeros_like(images), np.zeros_like(images)
    y[:, 1:-1], x[:, :, 1:-1] = (images[:, 2:] - images[:, :-2]) / 2, (images[:, :, 2:] - images[:, :, :-2]) / 2
    return y, x


def _in_blocks(values: Floats) -> Floats:
    """(n, SIDE, SIDE, 3) -> the means over blocks of 4 x 4 pixels, (n, SIDE / 4, SIDE / 4)."""
    blocks: Floats = values.reshape(len(values), SIDE // 4, 4, SIDE // 4, 4, 3).mean((2, 4, 5))
    return blocks


def _smooth(thumbnails: Bytes) -> Floats:
    """Removes the finest details, which a shift by less than a pixel changes most."""
    kernel = np.array([0.25, 0.5, 0.25], np.float32)
    smooth: Floats = convolve1d(convolve1d(thumbnails.astype(np.float32), kernel, 1), kernel, 2)
    return smooth


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Returns the sets of `count` things that pairs connect, each ascending, without things that are in no pair."""
    first, second = np.array([*pairs], np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), (count, count))
    _, component = connected_components(graph, directed=False)
    found: dict[int, list[int]] = {}
    for thing, its in enumerate(component.tolist()):
        found.setdefault(its, []).append(thing)
    return [members for members in found.values() if len(members) > 1]
