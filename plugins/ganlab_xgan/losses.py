"""XGAN's losses (arXiv:1711.05139, section 3), for any generator. XGAN's GAN loss can be any adversarial loss."""

from typing import Annotated, Literal

import torch
from ganlab_regularisers.losses import vectors
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

import ganlab
from ganlab import Translation


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns E ||a - b||_2 over a batch, divided by the square root of the number of values of one image.

    The division makes a weight independent of the size.
    """
    length: Tensor = torch.linalg.vector_norm((a - b).flatten(1), dim=1).mean() / a[0].numel() ** 0.5
    return length


class Reconstruction(ganlab.Loss):
    """L_rec: E ||x - d_1(e_1(x))||_2, with the decoder of x's own domain."""

    def generator(self, t: Translation) -> Tensor:
        return distance(t.source, t.reconstructed)


class SemanticConsistency(ganlab.Loss):
    """L_sem: E ||e_1(x) - e_2(g_12(x))||_2: a translation must have the embedding of its source."""

    def generator(self, t: Translation) -> Tensor:
        return distance(t.embedding, t.fake_embedding)


class DomainAdversarial(ganlab.Loss):
    """L_dann: the cross-entropy of a classifier that predicts an embedding's domain.

    The classifier minimises it; the encoders maximise it through a gradient reversal (arXiv:1505.07818). The classifier
    belongs to this loss and is updated with the generators, in one update of both. (A discriminator on embeddings has
    turns of its own.) At each position of the embedding it has `width` features, ReLU and a logit. Use a schedule that
    has both directions in one turn; otherwise the classifier sees one domain at a time.

    Args:
        width: features of the classifier's hidden layer.
    """

    def __init__(self, width: Annotated[int, Field(ge=1, le=1024)] = 128) -> None:
        super().__init__()
        self.width = width
        self.classifier = nn.Sequential()

    def prepare(self, t: Translation) -> None:
        # the reverse direction must exist: a classifier needs two domains
        channels = t.reverse.embedding.shape[1]
        if not self.classifier:
            self.classifier.extend([nn.Conv2d(channels, self.width, 1), nn.ReLU(), nn.Conv2d(self.width, 1, 1)])

    def generator(self, t: Translation) -> Tensor:
        # equals the embedding; its gradient has the opposite sign
        reversed_gradient = 2 * t.embedding.detach() - t.embedding
        of_b = self.classifier(reversed_gradient)
        return softplus(of_b if t.direction == "ab" else -of_b).mean()


class Teacher(ganlab.Loss):
    """L_teach: E ||T(x) - P e(x)||_2, with a feature network T and a linear map P that is trained with the generators.

    An embedding with several positions is averaged over them first.

    Args:
        features: the teacher T.
        domain: the domain of the images x. The paper's teacher knows one domain only.
    """

    def __init__(self, features: ganlab.Features, domain: Literal["a", "b", "both"] = "both") -> None:
        super().__init__()
        self.features = features
        self.domain = domain
        self.projection = nn.Sequential()

    def prepare(self, t: Translation) -> None:
        if not self.projection:
            self.projection.append(nn.Linear(t.embedding.shape[1], vectors(self.features, t.source).shape[1]))

    def generator(self, t: Translation) -> Tensor | None:
        if self.domain not in ("both", t.direction[0]):
            return None
        return distance(vectors(self.features, t.source), self.projection(t.embedding.mean(dim=(2, 3))))
