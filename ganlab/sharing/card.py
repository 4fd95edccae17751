"""Writes the model card of a shared model: README.md with front matter, as model hubs read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ganlab.display.html import environment
from ganlab.errors import GanlabError, printable
from ganlab.inference.sizes import Needs
from ganlab.interfaces.networks import Domain
from ganlab.runs.shared import About
from ganlab.sharing.onnx import Exported
from ganlab.spec.models import Json, ResolvedComponent, Spec
from ganlab.system.build import build_sources


class Model(NamedTuple):
    """A shared model, as its card describes it."""

    spec: Spec
    domains: Mapping[str, Domain]
    generators: Mapping[str, nn.Module]
    """{direction: generator}."""
    needs: Needs | None
    """The sizes that the generators take; None if it is the run's only."""
    about: Mapping[str, About]
    """{direction: what its file of weights says of itself}."""
    evaluation: Json | None
    """The content of evaluation.json, of this checkpoint alone; None if it is not measured."""
    grid: str
    """The caption of grid.png; "" if there is none."""
    onnx: Mapping[str, Exported]
    """{direction: its ONNX file}; empty if there are none."""
    license: str | None
    """The identifier of the licence, as model hubs have them; None if none is chosen."""


def card(model: Model) -> str:
    """Returns the content of README.md."""
    templates = environment("ganlab.sharing", autoescape=False)
    templates.keep_trailing_newline = True
    templates.filters |= {"yaml": _yaml, "cell": _cell, "number": _number, "counts": _counts}
    spec, results = model.spec, (model.evaluation or {}).get("results", [])
    imported = [about["imported"] for about in model.about.values() if "imported" in about]
    # the spec of an imported model names no images of its training
    sources = {} if imported else {domain: _title(spec.components[f"data.{domain}"]) for domain in "ab"}
    first = next(iter(model.about.values()))
    size = spec.data.size
    return templates.get_template("model_card.md.jinja").render(
        license=model.license,
        name=spec.name,
        about=printable(spec.about),
        directions=[
            {
                "name": direction,
                "way": f"{_named(direction[0], sources)} to {_named(direction[1], sources)}",
                "target": _named(direction[1], sources),
                "generator": spec.components["generator"].title,
                "parameters": sum(parameter.numel() for parameter in generator.parameters()),
                "files": [f"`{direction}.{suffix}`" for suffix in ("safetensors", *(["onnx"] if model.onnx else []))],
                "results": [_with_references(result) for result in results if result["direction"] == direction],
            }
            for direction, generator in model.generators.items()
        ],
        channels={name: domain.channels for name, domain in model.domains.items()},
        target_types={direction: spec.components[f"data.{direction[1]}"].component.name for direction in model.about},
        grid=model.grid,
        onnx=_onnx(model),
        imported=imported,
        training=_training(spec, first),
        results=results,
        protocol=_protocol((model.evaluation or {}).get("protocol", {})),
        sizes=_sizes(model.needs, size, bool(imported)),
        domains=[
            {
                "name": name,
                "source": sources[name],
                **first["data"].get(name, {"images": 0, "sha256": ""}),
                "credits": _credits(spec, name),
            }
            for name in sources
        ],
    )


def _named(domain: str, sources: Mapping[str, str]) -> str:
    return f"{domain} ({sources[domain]})" if domain in sources else domain


def _title(source: ResolvedComponent) -> str:
    """Returns a source's type and the first of its texts, and of a path the last part."""
    texts = [Path(value).name for value in source.options.values() if isinstance(value, str)]
    return printable(" ".join([source.component.name, *texts[:1]]))


def _credits(spec: Spec, domain: str) -> str:
    try:
        return printable(build_sources(spec)[domain].credits())
    except GanlabError:
        # what the source needs is not here
        return ""


def _training(spec: Spec, about: About) -> list[str]:
    data, trained = spec.data, about.get("trained")
    losses = ", ".join(_loss(spec, name) for name in spec.losses)
    discriminators = ", ".join(spec.components[f"discriminators.{name}"].title for name in spec.discriminators)
    averages = f"averaged over training, half-life {spec.ema_halflife_images:g} images" if about["averaged"] else ""
    lines = [
        f"Images of {data.size} x {data.size} pixels in batches of {data.batch}"
        f"{f', cut at random out of {data.resize} x {data.resize}' if data.resize is not None else ''}"
        f"{', mirrored at random' if data.flip else ''}; {_held_out(spec)} held out.",
        f"Losses: {losses}.",
        *([f"Discriminators: {discriminators}."] if discriminators else []),
        f"Schedule `{spec.components['schedule'].title}`; weights of step {about['step']}"
        f"{f', {averages}' if averages else ''}. Random seed {spec.seed}.",
    ]
    if spec.init.run is not None:
        lines.append(f"Began with the weights of the run `{printable(Path(spec.init.run).name)}`.")
    if trained is not None:
        packages = ", ".join(f"{name} {version}" for name, version in trained["packages"].items() if version)
        lines.append(f"Trained with {packages} on {trained['device_name']}, precision {spec.runtime.precision}.")
    return lines


def _held_out(spec: Spec) -> str:
    """Returns what is held out: "10% of each domain", "10% of a and a split of b"."""
    parts = {}
    for domain in "ab":
        try:
            divided = build_sources(spec)[domain].divided
        except GanlabError:
            # what the source needs is not here
            divided = False
        parts[domain] = "a split" if divided else f"{spec.data.holdout:.0%}"
    if parts["a"] == parts["b"]:
        return f"{parts['a']} of each domain"
    return " and ".join(f"{part} of {domain}" for domain, part in parts.items())


def _loss(spec: Spec, name: str) -> str:
    weights = dict.fromkeys(f"{weight:g}" for weight in spec.weight(name).values())
    return f"`{spec.components[f'losses.{name}'].title}` (weight {' and '.join(weights)})"


def _protocol(protocol: Json) -> list[str]:
    lines = []
    for domain, images in protocol.get("images", {}).items():
        counts = ", ".join(f"{images[part]} {part}" for part in ("train", "validation", "test") if part in images)
        lines.append(f"Images of {domain}: {counts}; SHA-256 `{images.get('sha256')}`.")
    lines += [f"{name.capitalize()}: {protocol[name]}." for name in ("split", "translated") if name in protocol]
    for label, features in protocol.get("features", {}).items():
        lines.append(f"Features `{label}`: {features.get('size')} pixels, {features.get('resize')}.")
    packages = {name: version for name, version in protocol.get("packages", {}).items() if version}
    if packages:
        lines.append(f"Measured with {', '.join(f'{name} {version}' for name, version in packages.items())}.")
    return lines


def _sizes(needs: Needs | None, size: int, imported: bool) -> str:
    if needs is None:
        return f"The generators take images of {size} x {size} pixels only."
    other = (
        f"heights and widths that are multiples of {needs.multiple}" if needs.multiple > 1 else "any height and width"
    )
    trained = f"Pictures are resized to {size} x {size} pixels" if imported else f"Trained at {size} x {size} pixels"
    return (
        f"{trained}. The generators take {other}, {needs.least} or more, but things of another size in pixels than in"
        " training may be translated badly."
    )


def _onnx(model: Model) -> Json | None:
    if not model.onnx:
        return None
    first, size = next(iter(model.onnx.values())), model.spec.data.size
    needs = model.needs
    sizes = f"Height and width are {size}." if needs is None else f"Height and width are multiples of {needs.multiple}."
    return {
        "opset": first.opset,
        "sizes": sizes,
        "difference": max(found.difference for found in model.onnx.values()),
        "exact": max(found.exact for found in model.onnx.values()),
        "checked": ", ".join(first.checked),
    }


def _with_references(result: Json) -> Json:
    """Returns a result whose references are complete: {"value": None} for one that was not measured."""
    references = {name: result["references"].get(name, {"value": None}) for name in ("real", "identity")}
    return {**result, "references": references}


def _yaml(value: Any) -> str:
    # JSON is YAML but for characters that are not printable, and 1e-05, which many readers take for a text
    text = re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value, ensure_ascii=False))
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _cell(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("|", "\\|")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())
