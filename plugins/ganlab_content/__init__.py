"""What a translation kept of its input's content: of declared labels, by a judge's reading; of colours and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ganlab
from ganlab import Estimate, Evidence, Images, Number, Unavailable
from ganlab.evaluation import estimates
from ganlab_content.agreement import agreement, colours, edges
from ganlab_content.judge import FEWEST, Judge, Shared

FEWEST_PAIRS = 4

COLOUR = Number(
    "how far light, dark and coloured parts are in the same places in output and input: 1 the same, 0 no more than in"
    " pairs put together at random, -1 inverted (cosine of the 8x8 RGB images, less the mean image of each set)",
    "higher",
    copies_win=True,
)
EDGES = Number(
    "how far edges are in the same places in output and input: 1 the same, 0 no more than in pairs put together at"
    " random (cosine of the strengths of the edges at 32x32, less the mean of each set)",
    "higher",
    copies_win=True,
)


class Content(ganlab.Metric):
    """Agreement between outputs and their inputs.

    Raises ValueError where a shared name is one of the numbers that need no labels.

    Args:
        shared: {name: what the domains share}; each gives a number "content-NAME". For it a `Judge` learns from the
            real training images of the target domain, and the number is how often its reading of an output is the class
            of the input. On real images it is the judge's own accuracy.
    """

    def __init__(self, shared: dict[str, Shared] = {}) -> None:  # noqa: B006  (options are read, never changed)
        for name in ("colour", "edges"):
            if name in shared:
                raise ValueError(f"shared has {name!r}, which is the name of a number without labels; use another name")
        self._shared = shared
        judged = {
            f"content-{name}": Number(
                f"how often a judge, trained on real images of the target domain, reads in an output the {name} of its"
                " input",
                "higher",
                copies_win=True,
            )
            for name in shared
        }
        self.numbers: Mapping[str, Number] = {**judged, "content-colour": COLOUR, "content-edges": EDGES}

    def measure(self, evidence: Evidence) -> dict[str, Estimate | Unavailable]:
        """A number with labels is Unavailable where images lack the attribute, where the domains share no class of it,
        or where too few images have it to learn from or to measure on.

        Raises Unavailable where there are no inputs, or fewer than four pairs.
        """
        inputs, outputs = evidence.inputs, evidence.outputs
        if inputs is None:
            raise Unavailable("needs the input of each output, and there are none")
        estimates.refuse_fewer({"pairs": len(outputs)}, FEWEST_PAIRS)
        found: dict[str, Estimate | Unavailable] = {}
        for name, shared in self._shared.items():
            try:
                found[f"content-{name}"] = _judged(evidence, inputs, name, shared)
            except Unavailable as missing:
                found[f"content-{name}"] = missing
        for name, seen in (("content-colour", colours), ("content-edges", edges)):
            found[name] = agreement(seen(inputs), seen(outputs))
        return found


def _judged(evidence: Evidence, inputs: Images, name: str, shared: Shared) -> Estimate:
    target = evidence.targets.domain
    learning = evidence.learning.get(target)
    if learning is None:
        raise Unavailable("needs a run, on whose training images a judge can learn")
    wanted = {i: kind for i, kind in enumerate(shared.of(inputs)) if kind is not None}
    known = {i: kind for i, kind in enumerate(shared.of(learning)) if kind is not None}
    estimates.refuse_fewer({f"inputs with a class of {name!r}": len(wanted)}, FEWEST_PAIRS)
    estimates.refuse_fewer({f"training images with a class of {name!r}": len(known)}, FEWEST)
    if len(set(known.values())) < 2:
        raise Unavailable(f"domain {target} has no other class of {name!r} than {_list(known.values())}")
    if set(wanted.values()).isdisjoint(known.values()):
        raise Unavailable(
            f"domains {inputs.domain} and {target} have no class of {name!r} in common ({_list(wanted.values())}; "
            f"{_list(known.values())}); `classes` can bring their values together"
        )
    judge = evidence.once(
        ("content", target, name, shared.model_dump_json()),
        lambda: Judge(learning.take(list(known)), list(known.values()), evidence.seed, target, name),
    )
    read = judge.read(evidence.outputs.take(list(wanted)))
    kinds = list(wanted.values())
    by_chance = sum(kinds.count(kind) * read.count(kind) for kind in judge.classes) / len(kinds) ** 2
    return estimates.proportion([one == other for one, other in zip(kinds, read, strict=True)], "pairs", by_chance)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"content": Content}
