"""The metric "content": measures how far a translation keeps its input's labels, colours and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ganlab
from ganlab import Estimate, Images, MetricInfo, MetricInputs, Unavailable
from ganlab.evaluation import estimates
from ganlab_content.agreement import agreement, colours, edges
from ganlab_content.judge import FEWEST, Judge, Shared

FEWEST_PAIRS = 4
"""The fewest pairs from which a number is estimated."""

COLOUR = MetricInfo(
    "how far output and input have the same colours in the same places: 1 if they are equal, 0 as in random pairs, -1"
    " if one is inverted (cosine of the 8x8 RGB images, less the mean image of each set)",
    "higher",
    identity_is_optimal=True,
)
EDGES = MetricInfo(
    "how far output and input have edges in the same places: 1 if they are equal, 0 as in random pairs (cosine of the"
    " edge strengths at 32x32, less the mean of each set)",
    "higher",
    identity_is_optimal=True,
)


class Content(ganlab.Metric):
    """Measures the agreement of outputs with their inputs.

    "content-colour" and "content-edges" need no labels. Each entry of `shared` adds a number "content-NAME": a
    classifier learns the classes from real training images of the target domain, and the number is the share of outputs
    that it assigns to the class of their input. On real images the number is the classifier's own accuracy.

    Raises ValueError if `shared` has an entry "colour" or "edges".

    Args:
        shared: {name: content that both domains share}.
    """

    fewest = FEWEST_PAIRS

    def __init__(self, shared: dict[str, Shared] = {}) -> None:  # noqa: B006  (options are read, never changed)
        for name in ("colour", "edges"):
            if name in shared:
                raise ValueError(f"shared has {name!r}, which is the name of a number without labels; use another name")
        self._shared = shared
        judged = {
            f"content-{name}": MetricInfo(
                f"the share of outputs that show the {name} of their input, as judged by a classifier that was trained"
                " on real images of the target domain",
                "higher",
                identity_is_optimal=True,
            )
            for name in shared
        }
        self.numbers: Mapping[str, MetricInfo] = {**judged, "content-colour": COLOUR, "content-edges": EDGES}

    def missing(self, images: Mapping[str, Images]) -> dict[str, str]:
        without = ", ".join(domain for domain, of in sorted(images.items()) if of.attributes is None)
        why = f"it needs attributes of the images, and those of {without} have none"
        return {f"content-{name}": why for name in self._shared} if without else {}

    def measure(self, data: MetricInputs) -> dict[str, Estimate | Unavailable]:
        """Measures all numbers. Raises Unavailable if there are no inputs, or fewer than four pairs.

        The number of a `shared` entry is Unavailable if images lack the attribute, if the domains share no class of it,
        or if too few images have it to train or to measure on.
        """
        inputs, outputs = data.inputs, data.outputs
        if inputs is None:
            raise Unavailable("needs the input of each output; give their folder with --inputs")
        estimates.refuse_fewer({"pairs": len(outputs)}, FEWEST_PAIRS)
        found: dict[str, Estimate | Unavailable] = {}
        for name, shared in self._shared.items():
            try:
                found[f"content-{name}"] = _judged(data, inputs, name, shared)
            except Unavailable as missing:
                found[f"content-{name}"] = missing
        for name, seen in (("content-colour", colours), ("content-edges", edges)):
            found[name] = agreement(seen(inputs), seen(outputs))
        return found


def _judged(data: MetricInputs, inputs: Images, name: str, shared: Shared) -> Estimate:
    target = data.targets.domain
    train = data.train.get(target)
    if train is None:
        raise Unavailable("needs a run: a classifier learns from its training images")
    wanted = {i: kind for i, kind in enumerate(shared.of(inputs)) if kind is not None}
    known = {i: kind for i, kind in enumerate(shared.of(train)) if kind is not None}
    estimates.refuse_fewer({f"inputs with a class of {name!r}": len(wanted)}, FEWEST_PAIRS)
    estimates.refuse_fewer({f"training images with a class of {name!r}": len(known)}, FEWEST)
    if len(set(known.values())) < 2:
        raise Unavailable(f"domain {target} has no other class of {name!r} than {_list(known.values())}")
    if set(wanted.values()).isdisjoint(known.values()):
        raise Unavailable(
            f"domains {inputs.domain} and {target} have no class of {name!r} in common ({_list(wanted.values())}; "
            f"{_list(known.values())}); `classes` can bring their values together"
        )
    judge = data.once(
        ("content", target, name, shared.model_dump_json()),
        lambda: Judge(train.take(list(known)), list(known.values()), data.seed, target, name),
    )
    read = judge.read(data.outputs.take(list(wanted)))
    kinds = list(wanted.values())
    by_chance = sum(kinds.count(kind) * read.count(kind) for kind in judge.classes) / len(kinds) ** 2
    return estimates.proportion([one == other for one, other in zip(kinds, read, strict=True)], "pairs", by_chance)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"content": Content}
