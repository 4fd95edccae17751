"""The metric "lpips": perceptual distance (arXiv:1801.03924) on AlexNet or on the shift-tolerant AlexNet."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

import ganlab
from ganlab.determinism import keyed
from ganlab.errors import Unavailable
from ganlab.evaluation.estimates import mean, refuse_fewer
from ganlab.evaluation.lpips import Trunk, distance
from ganlab.files import digest, download
from ganlab.interfaces.metrics import Images, MetricInputs, one_size

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""The weights of torchvision's AlexNet. The file's name ends with the first digits of its SHA-256."""

BATCH = 8
"""The number of images of one forward: as fast as 32 on a CPU, with a quarter of the memory. The last bits of the
results depend on it."""

LEAST = {"alex": 31, "stlpips-alex": 21}
"""The smallest height and width in pixels that the trunk takes."""


class LPIPS(ganlab.Metric):
    """Measures the LPIPS distance of images from their reconstructions, and of outputs from one another.

    Runs on the CPU.

    Args:
        network: "alex" is AlexNet, the LPIPS of the literature. "stlpips-alex" is the shift-tolerant AlexNet
            (arXiv:2207.13686). "auto" is "alex" if its weights were downloaded before, otherwise "stlpips-alex". The
            numbers' names contain the choice.
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
            f"{self._name}-cycle": ganlab.MetricInfo(
                "how different an image looks after it was translated and translated back:"
                f" the mean distance of the two by {which}, 0 if they are equal"
            ),
            f"{self._name}-diversity": ganlab.MetricInfo(
                f"how different outputs look from one another: the mean distance of random pairs by {which};"
                " near 0 all look the same; compare it with real images",
                "",
            ),
        }

    def measure(self, data: MetricInputs) -> Mapping[str, ganlab.Estimate | Unavailable]:
        """Returns both numbers. The number for cycles is Unavailable if no images were translated back.

        Raises Unavailable if weights are missing, if images are too small or differ in size, or if there are fewer than
        four outputs.
        """
        outputs = data.outputs
        refuse_fewer({"outputs": len(outputs)}, 4)
        pairs = keyed("diversity", data.seed, len(outputs)).permutation(len(outputs))[: len(outputs) // 2 * 2]
        first, second = pairs.reshape(2, -1).tolist()
        compared: dict[str, tuple[Images, Images]] = {}
        if data.inputs is not None and data.cycled is not None:
            compared["cycle"] = (data.inputs, data.cycled)
        compared["diversity"] = (outputs.take(first), outputs.take(second))
        for both in compared.values():
            self._refuse_sizes(*both)
        found = {f"{self._name}-{what}": mean(self._distances(*both)) for what, both in compared.items()}
        return {f"{self._name}-cycle": Unavailable("needs images that were translated back"), **found}

    def files(self) -> Sequence[Path]:
        return self._loaded.files if isinstance(self._loaded, _Weights) else ()

    def _refuse_sizes(self, *sets: Images) -> None:
        height, width = one_size(*(images.pixels for images in sets))
        if min(height, width) < (least := LEAST[self._network]):
            raise Unavailable(
                f"{self._name} needs images of at least {least}x{least} pixels; they are {height}x{width}"
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
        # the error is kept too, so that a failed download is not tried again at every measurement
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
    if str(path).startswith("~"):
        raise Unavailable("lpips-alex has no folder for its weights: the user has no home folder; set $TORCH_HOME")
    if not path.exists():
        try:
            download(URL, path, _sha256())
        except OSError as error:
            raise Unavailable(
                f"lpips-alex needs {URL} at {path}, and downloading it failed ({error}); put it there, or use the"
                " network stlpips-alex, whose weights come with pip install 'ganlab[stlpips]'"
            ) from error
    if not digest(path).startswith(_sha256()):
        raise Unavailable(f"{path} is not the complete file of {URL}; delete it, and it is downloaded again")
    linear = _shipped("lpips", "weights/v0.1/alex.pth")
    if linear is None:
        raise Unavailable("lpips-alex needs the weights inside the package lpips; pip install lpips")
    trunk = _trunk(shift_tolerant=False)
    # without the classifier, which the trunk does not have
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
    """Removes the linear weights of the five layers from `state` and returns them, each (C,)."""
    return [state.pop(f"lin{layer}.model.1.weight").flatten() for layer in range(5)]


def _read(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _shipped(package: str, name: str) -> Path | None:
    """Returns a file of a package, None if it is missing. Importing stlpips_pytorch would need undeclared packages."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((path for folder in folders if (path := Path(folder) / name).exists()), None)


def _downloaded() -> Path:
    """Returns the path at which torchvision stores AlexNet's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]


def _sha256() -> str:
    """Returns the first digits of the SHA-256 of AlexNet's weights."""
    return _downloaded().stem.rpartition("-")[2]


@ganlab.hookimpl
def ganlab_metrics() -> dict[str, type[ganlab.Metric]]:
    return {"lpips": LPIPS}
