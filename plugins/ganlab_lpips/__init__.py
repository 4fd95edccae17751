"""The metric "lpips": perceptual distance (arXiv:1801.03924), on AlexNet or on its shift-tolerant sibling."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

import ganlab
from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.estimates import mean, refuse_fewer
from ganlab.evaluation.evidence import Evidence, Images
from ganlab.evaluation.lpips import Trunk, distance
from ganlab.files import digest, download

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's AlexNet. The name ends with the beginning of the file's SHA-256."""

BATCH = 8
"""Images a forward: as fast as 32 on a CPU, in a quarter of the memory. It belongs to the last bits of a number."""

LEAST = {"alex": 31, "stlpips-alex": 21}
"""The height and width in pixels of the smallest images that the trunk takes."""


class LPIPS(ganlab.Metric):
    """How far images are from their reconstructions, and outputs from one another, as LPIPS sees it; on the CPU.

    Args:
        network: "alex" is AlexNet, the LPIPS of the literature; "stlpips-alex" is the shift-tolerant AlexNet
            (arXiv:2207.13686); "auto" is "alex" where its trunk has been downloaded before, otherwise "stlpips-alex".
            The numbers' names say which.
    """

    packages = ("lpips", "stlpips-pytorch")

    def __init__(self, network: Literal["auto", "alex", "stlpips-alex"] = "auto") -> None:
        if network == "auto":
            network = "alex" if _downloaded().exists() else "stlpips-alex"
        self._network = network
        self._name = "lpips-alex" if network == "alex" else network
        self._loaded: _Weights | Unavailable | None = None
        which = f"LPIPS on {'AlexNet' if network == 'alex' else 'the shift-tolerant AlexNet'}"
        self.numbers = {
            f"{self._name}-cycle": ganlab.Number(
                "how different an image looks once it was translated there and back:"
                f" the mean distance between the two by {which}, 0 where they are the same"
            ),
            f"{self._name}-diversity": ganlab.Number(
                f"how different outputs look from one another: the mean distance of random pairs by {which};"
                " near 0 all look the same, and real images say what is usual",
                "",
            ),
        }

    def measure(self, evidence: Evidence) -> Mapping[str, ganlab.Estimate | Unavailable]:
        """Both numbers; without images that came back, diversity, and why that alone.

        Raises Unavailable where weights are missing, images too small or of several sizes, or fewer than four.
        """
        outputs = evidence.outputs
        refuse_fewer({"outputs": len(outputs)}, 4)
        pairs = keyed("diversity", evidence.seed, len(outputs)).permutation(len(outputs))[: len(outputs) // 2 * 2]
        first, second = pairs.reshape(2, -1).tolist()
        compared: dict[str, tuple[Images, Images]] = {}
        if evidence.inputs is not None and evidence.cycled is not None:
            compared["cycle"] = (evidence.inputs, evidence.cycled)
        compared["diversity"] = (outputs.take(first), outputs.take(second))
        for both in compared.values():
            self._refuse_sizes(*both)
        found = {f"{self._name}-{what}": mean(self._distances(*both)) for what, both in compared.items()}
        return {f"{self._name}-cycle": Unavailable("needs images that were translated back"), **found}

    def files(self) -> Sequence[Path]:
        return self._loaded.files if isinstance(self._loaded, _Weights) else ()

    def _refuse_sizes(self, *sets: Images) -> None:
        examples = {image.shape: image for images in sets for image in images.pixels}
        height, width = Images([*examples.values()]).tensor().shape[2:]
        if min(height, width) < (least := LEAST[self._network]):
            raise Unavailable(
                f"{self._name} needs images of at least {least}x{least} pixels, and these are {height}x{width}"
            )

    def _distances(self, ours: Images, theirs: Images) -> list[float]:
        weights = self._weights()
        found: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(ours), BATCH):
                members = range(start, min(start + BATCH, len(ours)))
                seen = [weights.trunk(images.take(members).tensor()) for images in (ours, theirs)]
                found += distance(seen[0], seen[1], weights.layers).tolist()
        return found

    def _weights(self) -> "_Weights":
        # a download that failed is not tried again at every measurement
        if self._loaded is None:
            try:
                self._loaded = _alex() if self._network == "alex" else _stlpips_alex()
            except Unavailable as error:
                self._loaded = error
        if isinstance(self._loaded, Unavailable):
            raise Unavailable(str(self._loaded))
        return self._loaded


class _Weights(NamedTuple):
    trunk: Trunk
    layers: list[Tensor]
    files: tuple[Path, ...]


def _alex() -> _Weights:
    path = _downloaded()
    if not path.exists():
        try:
            download(URL, path, _sha256())
        except OSError as error:
            raise Unavailable(
                f"lpips-alex needs {URL} at {path}, and downloading it failed ({error}); put it there, or use the"
                " network stlpips-alex, whose weights come with pip install 'ganlab[stlpips]'"
            ) from error
    if not digest(path).startswith(_sha256()):
        raise Unavailable(f"{path} is not the whole of {URL}; delete it and it will be downloaded again")
    linear = _shipped("lpips", "weights/v0.1/alex.pth")
    if linear is None:
        raise Unavailable("lpips-alex needs the weights inside the package lpips; pip install lpips")
    trunk = _trunk(shift_tolerant=False)
    # the rest of the file, its classifier, is no part of the trunk
    features = {name: value for name, value in _read(path).items() if name.startswith("features.")}
    trunk.features.load_state_dict({name.removeprefix("features."): value for name, value in features.items()})
    return _Weights(trunk, _layers(_read(linear)), (path, linear))


def _stlpips_alex() -> _Weights:
    path = _shipped("stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth")
    if path is None:
        raise Unavailable(
            "stlpips-alex needs the weights inside a package, pip install 'ganlab[stlpips]';"
            f" or, for lpips-alex, put {URL} at {_downloaded()}"
        )
    state = _read(path)
    layers = _layers(state)
    trunk = _trunk(shift_tolerant=True)
    trunk.load_state_dict(
        {re.sub(r"^net\.slice\d", "features", name).removeprefix("scaling_layer."): state[name] for name in state}
    )
    return _Weights(trunk, layers, (path,))


def _trunk(shift_tolerant: bool) -> Trunk:
    # the layers draw their first weights from torch's global generator
    with torch.random.fork_rng(devices=[]):
        trunk = Trunk(shift_tolerant).eval().requires_grad_(False)
    # measured on one CPU core: 1.4 to 1.7 times as fast
    return trunk.to(memory_format=torch.channels_last)


def _layers(state: dict[str, Tensor]) -> list[Tensor]:
    """Takes the linear weights of the five layers, each (C,), out of a file's."""
    return [state.pop(f"lin{layer}.model.1.weight").flatten() for layer in range(5)]


def _read(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _shipped(package: str, name: str) -> Path | None:
    """A file inside a package, which is not imported: stlpips_pytorch needs others that it doesn't declare."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((path for folder in folders if (path := Path(folder) / name).exists()), None)


def _downloaded() -> Path:
    """Where torchvision keeps its AlexNet."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]


def _sha256() -> str:
    """How the trunk's SHA-256 begins."""
    return _downloaded().stem.rpartition("-")[2]


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"lpips": LPIPS}
