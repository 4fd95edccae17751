"""Prepares the images of small sets too, one image a block: python preparing.py FOLDER SIZE prints the fingerprint."""

import json
import sys

import typer

from ganlab.cli.process import errors
from ganlab.data import store
from ganlab.data.dataset import load
from ganlab.data.folder import Folder

store.KEPT_FROM = 0
store._BLOCK = 1
# two processes on a machine with one core too
store.cores = lambda: 2

if __name__ == "__main__":
    identity = json.dumps({"type": "folder", "path": sys.argv[1]})
    try:
        with errors():
            dataset = load(Folder(sys.argv[1]), "a", int(sys.argv[2]), 0.25, identity=identity)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    print(dataset.fingerprint()["sha256"])
