"""clean-fid's Inception network (arXiv:2104.11222), for FID as in the literature."""

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
from ganlab.components.registry import registry
from ganlab.files import download, hashes, user_folder

NAME = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""The hash of the file that clean-fid downloads."""

CLEAN_FID_FOLDER = Path("." if platform.system() == "Windows" else "/tmp")
"""The folder in which clean-fid itself stores the file."""


class Inception(ganlab.Features):
    """clean-fid's Inception-v3 (arXiv:1512.00567): the 2048 activations before its classifier.

    Args:
        path: the weight file, inception-2015-12-05.pt; its content is not checked. By default the file is searched in
            $GANLAB_WEIGHTS, in ganlab/weights in the user's data folder and in clean-fid's folder. It is downloaded if
            it is in none, and refused if it is not the published file.
    """

    size = 299
    packages = ("clean-fid",)

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._file = _named(path) if path else _found()
        try:
            with warnings.catch_warnings():
                # the file is published in this format alone
                warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
                self._network = InceptionV3W(str(self._file.parent), download=False)
        except (RuntimeError, AttributeError) as error:
            raise ganlab.Unavailable(f"{self._file} is damaged or holds another network; delete it") from error
        self._network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 299, 299) in [-1, 1] -> vectors (N, 2048)."""
        # on a GPU the compiler would fuse operations after some calls, which may change the last bits
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            vectors: Tensor = self._network((images + 1) * 127.5)
        return vectors

    def files(self) -> Sequence[Path]:
        return (self._file,)


def _named(file: Path) -> Path:
    if file.name != NAME or not file.is_file():
        raise ganlab.Unavailable(f"path is {str(file)!r}, which is not a file named {NAME}")
    return file


def _found() -> Path:
    own = os.environ.get("GANLAB_WEIGHTS")
    users = user_folder(user_data_path)
    folders = [*([Path(own)] if own else []), *([users / "weights"] if users else []), CLEAN_FID_FOLDER]
    file = next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)
    if file is None:
        file = folders[0] / NAME
        _download(file)
    if hashes([file])[NAME] != SHA256:
        raise ganlab.Unavailable(
            f"{file} is damaged or not the file at {inception_url}; delete it, or set the option `path` to it to use it"
        )
    return file


def _download(file: Path) -> None:
    try:
        download(inception_url, file, SHA256)
    except OSError as error:
        shipped = registry().shipped_features()
        meanwhile = (
            f"; meanwhile use {' or '.join(shipped)} (--features, or evaluation.features in a spec), which needs no"
            " download"
        )
        reason = getattr(error, "reason", error)
        raise ganlab.Unavailable(
            f"the weights of inception are missing and could not be downloaded ({reason}): put {NAME} from"
            f" {inception_url} into {file.parent}{meanwhile if shipped else ''}"
        ) from error


@ganlab.hookimpl
def ganlab_features() -> dict[str, type[ganlab.Features]]:
    return {"inception": Inception}
