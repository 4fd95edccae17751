"""PatchNCE, the patchwise contrastive loss of CUT and FastCUT (arXiv:2007.15651)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

import ganlab
from ganlab import Translation

HIDDEN = 256
"""Units in each of the two layers of a projection head, as published."""


class PatchNCE(ganlab.Loss):
    """PatchNCE, eq. (3): a patch of a translation must resemble the patch of the source at the same position
    more than any other patch of the same source.

    A patch is one position of one activation of the generator's encoder, projected by a head of two layers to 256
    values of norm 1. The heads are created from the activations' channels and trained with the generators. The sums of
    eq. (3) over layers and patches are means, and the patches of the source are constants, as in the authors' code.

    `identity` adds the same loss on the translation of `t.target`. In eq. (5), lambda_X is the loss's weight, and
    lambda_Y is `identity` times the weight. CUT has weight 1 and `identity` 1 (the authors' code takes the mean of both
    terms instead of their sum); FastCUT has weight 10, `identity` 0 and `flip` true.

    With `flip`, `t.fake` stays the translation of the source: its activations are mirrored and compared with those of
    the mirrored source. Each image has a coin of its own. The authors' code draws one coin a step for the whole batch,
    translates the mirrored source, so that the discriminator sees that translation, and mirrors its activations back.

    Args:
        temperature: the divisor of the patches' similarities (tau).
        patches: the number of positions drawn from each activation, or all of a smaller one.
        layers: the activations, by index: 0 for the images themselves, 1 for the first activation of the encoder, -1
            for the embedding. null for the images and all activations with more than one position.
        identity: the factor of the term on the translation of the target; 0 leaves it out.
        flip: mirrors the source and the activations of the translation before they are compared, each image with
            probability 1/2 (flip equivariance).
    """

    def __init__(
        self,
        temperature: Annotated[float, Field(gt=0)] = 0.07,
        patches: Annotated[int, Field(ge=2, le=65536)] = 256,
        layers: tuple[Annotated[int, Field(ge=-1000, le=1000)], ...] | None = None,
        identity: Annotated[float, Field(ge=0)] = 1.0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.patches = patches
        self.layers = layers
        self.identity = identity
        self.flip = flip
        self.heads = nn.ModuleDict()

    def prepare(self, t: Translation) -> None:
        channels = [maps.shape[1] for maps in self._chosen(t.source, t.features())]
        self.heads[t.direction] = nn.ModuleList(map(projection_head, channels))

    def generator(self, t: Translation) -> dict[str, Tensor]:
        terms = {"source": self._contrast(t, t.source, t.fake)}
        if self.identity:
            terms["identity"] = self.identity * self._contrast(t, t.target, t.identity)
        return terms

    def _contrast(self, t: Translation, images: Tensor, translations: Tensor) -> Tensor:
        """Returns the mean of eq. (3) over the layers, for images (N, C, H, W) and their translations."""
        queries = self._chosen(translations, t.features(translations))
        keys = self._chosen(images, t.features(images))
        if self.flip:
            flipped, mirrored = t.uniform(len(images), 1, 1, 1) < 0.5, images.flip(3)
            of_mirrored = self._chosen(mirrored, t.features(mirrored))
            queries = [torch.where(flipped, query.flip(3), query) for query in queries]
            keys = [torch.where(flipped, *pair) for pair in zip(of_mirrored, keys, strict=True)]
        heads, losses = self.heads[t.direction], []
        assert isinstance(heads, nn.ModuleList)
        for head, query, key in zip(heads, queries, keys, strict=True):
            positions = t.uniform(query[0, 0].numel()).argsort()[: self.patches]
            pair = [normalize(head(patches_at(maps, positions)), dim=2) for maps in (query, key)]
            losses.append(info_nce(pair[0], pair[1].detach(), self.temperature))
        return torch.stack(losses).mean()

    def _chosen(self, images: Tensor, activations: list[Tensor]) -> list[Tensor]:
        """Returns the maps of `layers`, each (N, C, h, w)."""
        maps = [images, *activations]
        if self.layers is None:
            return [one for one in maps if one[0, 0].numel() > 1]
        if wrong := [layer for layer in self.layers if not -len(maps) <= layer < len(maps)]:
            raise ValueError(
                f"layers: {wrong[0]} is not allowed, only {-len(maps)} to {len(maps) - 1}: the generator has"
                f" {len(activations)} activations"
            )
        return [maps[layer] for layer in self.layers]


def projection_head(channels: int) -> nn.Sequential:
    """Returns the head H_l for `channels` channels: two layers of 256 units.

    It has torch's initial weights. The authors' code has biases of 0, but the vector of a patch may be 0 after a ReLU,
    and 0 cannot be scaled to norm 1.
    """
    return nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))


def patches_at(maps: Tensor, positions: Tensor) -> Tensor:
    """Returns the vectors (N, S, C) of maps (N, C, h, w) at positions (S,), counted row by row."""
    return maps.flatten(2).index_select(2, positions).mT


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Returns the mean of eq. (2) of arXiv:2007.15651 over queries (N, S, D) of norm 1.

    The positive of a query is the key with the same index; its negatives are the other keys of the same image.
    """
    similarities = queries @ keys.mT / temperature  # (N, S, S)
    return -similarities.log_softmax(dim=2).diagonal(dim1=1, dim2=2).mean()
