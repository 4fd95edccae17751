"""clean-fid's Inception network (arXiv:2104.11222): FID as the literature means it."""

import os
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from cleanfid.downloads_helper import inception_url
from cleanfid.inception_torchscript import InceptionV3W
from platformdirs import user_data_path
from torch import Tensor

import ganlab
from ganlab.evaluation.features import hashes
from ganlab.files import download
from ganlab.registry import registry

NAME = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of the file at clean-fid's address."""

CLEAN_FID_FOLDER = Path("." if platform.system() == "Windows" else "/tmp")
"""Where clean-fid itself puts the file."""


class Inception(ganlab.Features):
    """clean-fid's Inception-v3 (arXiv:1512.00567), the 2048 numbers before its classifier.

    Args:
        path: its weight file, inception-2015-12-05.pt, used whatever it holds. By default the file is looked for in
            $GANLAB_WEIGHTS, in the user's folder for data (ganlab/weights) and where clean-fid puts it, and downloaded
            where it is in none; one that isn't the published one is refused.
    """

    size = 299
    packages = ("clean-fid",)

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self._file = _named(path) if path else _found()
        try:
            with warnings.catch_warnings():
                # the file is published in this format alone
                warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
                self._network = InceptionV3W(str(self._file.parent), download=False)
        except (RuntimeError, AttributeError) as error:
            raise ganlab.Unavailable(f"{self._file} is damaged, or another network; delete it") from error
        self._network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 299, 299) in [-1, 1] -> (N, 2048)."""
        # otherwise on a GPU the compiler fuses operations after some calls, and the last bits may change
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            vectors: Tensor = self._network((images + 1) * 127.5)
        return vectors

    def files(self) -> Sequence[Path]:
        return (self._file,)


def _named(path: str) -> Path:
    file = Path(path)
    if file.name != NAME or not file.is_file():
        raise ganlab.Unavailable(f"path is {path!r}, which is no file of the name {NAME}")
    return file


def _found() -> Path:
    own = os.environ.get("GANLAB_WEIGHTS")
    folders = [*([Path(own)] if own else []), user_data_path("ganlab") / "weights", CLEAN_FID_FOLDER]
    file = next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)
    if file is None:
        file = folders[0] / NAME
        _download(file)
    if hashes([file])[NAME] != SHA256:
        raise ganlab.Unavailable(
            f"{file} is damaged, or not what {inception_url} is; delete it, or name it by the option `path` to use it"
        )
    return file


def _download(file: Path) -> None:
    try:
        download(inception_url, file, SHA256)
    except OSError as error:
        shipped = registry().shipped_features()
        meanwhile = (
            f"; meanwhile use {' or '.join(shipped)}, whose weights are in a package (--features, or"
            " evaluation.features in a spec)"
        )
        reason = getattr(error, "reason", error)
        raise ganlab.Unavailable(
            f"the weights of inception are not here and could not be downloaded ({reason}): put {NAME} from"
            f" {inception_url} into {file.parent}{meanwhile if shipped else ''}"
        ) from error


@ganlab.hookimpl
def ganlab_features() -> dict[str, type[ganlab.Features]]:
    return {"inception": Inception}
