"""XGAN's losses (arXiv:1711.05139, section 3); its GAN loss is any adversarial one. They fit every generator."""

from typing import Annotated, Literal

import torch
from ganlab_regularisers.losses import vectors
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

import ganlab
from ganlab import Translation


def distance(a: Tensor, b: Tensor) -> Tensor:
    """E ||a - b||_2 over a batch, divided by the root of one's size: a weight means the same at every size."""
    length: Tensor = torch.linalg.vector_norm((a - b).flatten(1), dim=1).mean() / a[0].numel() ** 0.5
    return length


class Reconstruction(ganlab.Loss):
    """L_rec: E ||x - d_1(e_1(x))||_2, through the decoder of x's own domain."""

    def generator(self, t: Translation) -> Tensor:
        return distance(t.real, t.reconstructed)


class SemanticConsistency(ganlab.Loss):
    """L_sem: E ||e_1(x) - e_2(g_12(x))||_2: a translation has the embedding of its source."""

    def generator(self, t: Translation) -> Tensor:
        return distance(t.embedding, t.fake_embedding)


class DomainAdversarial(ganlab.Loss):
    """L_dann: the cross-entropy of a classifier that tells from an embedding its domain; the classifier minimises it,
    the encoders, behind a reversal of the gradient (arXiv:1505.07818), maximise it.

    The classifier is this loss's own and moves with the generators: reversal is one update of both, which a
    discriminator on the embeddings, with a turn of its own, is not. At each position of the embedding: `width`
    features, ReLU, a logit. Let both ways' terms be in one turn, or the classifier sees one domain at a time.

    Args:
        width: features of the classifier's hidden layer.
    """

    def __init__(self, width: Annotated[int, Field(ge=1)] = 128) -> None:
        super().__init__()
        self.width = width
        self.classifier = nn.Sequential()

    def prepare(self, t: Translation) -> None:
        # the way back's: one domain alone can't be told from another
        channels = t.back.embedding.shape[1]
        if not self.classifier:
            self.classifier.extend([nn.Conv2d(channels, self.width, 1), nn.ReLU(), nn.Conv2d(self.width, 1, 1)])

    def generator(self, t: Translation) -> Tensor:
        # the embedding's value exactly, with its gradient's sign turned
        backwards = 2 * t.embedding.detach() - t.embedding
        of_b = self.classifier(backwards)
        return softplus(of_b if t.name == "ab" else -of_b).mean()


class Teacher(ganlab.Loss):
    """L_teach: E ||T(x) - P e(x)||_2, T being any features component, P a linear map that is learned with the
    generators. Of an embedding with several positions their mean is mapped.

    Args:
        features: the teacher T.
        domain: whose images are taught; the paper's teacher knows one domain only.
    """

    def __init__(self, features: ganlab.Features, domain: Literal["a", "b", "both"] = "both") -> None:
        super().__init__()
        self.features = features
        self.domain = domain
        self.projection = nn.Sequential()

    def prepare(self, t: Translation) -> None:
        if not self.projection:
            self.projection.append(nn.Linear(t.embedding.shape[1], vectors(self.features, t.real).shape[1]))

    def generator(self, t: Translation) -> Tensor | None:
        if self.domain not in ("both", t.name[0]):
            return None
        return distance(vectors(self.features, t.real), self.projection(t.embedding.mean(dim=(2, 3))))
