"""Thirty ways to damage a file, and a checkpoint's manifest that vouches for a forged one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, Path, random.Random], None]
"""(file, the same file of another run, chooser). Changes the file."""


def forge(checkpoint: Path) -> None:
    """Lets a checkpoint's manifest agree with its files."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (checkpoint / name).read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    return lambda path, other, chooser: path.write_bytes(change(path.read_bytes(), chooser)) and None


def _flip(content: bytes, chooser: random.Random) -> bytes:
    if not content:
        return b"\x00"
    at = chooser.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chooser.randrange(8))]) + content[at + 1 :]


def _instead(make: Callable[[Path, Path], Any]) -> Damage:
    def damage(path: Path, other: Path, chooser: random.Random) -> None:
        path.rename(path.with_name(f".{path.name}.real"))
        make(path, path.with_name(f".{path.name}.real"))

    return damage


def _socket(path: Path, real: Path) -> None:
    before = Path.cwd()
    # a socket's path may not be long
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _value(value: Any) -> Damage:
    """Replaces a random value of a JSON file, however deep it lies, or of a line of one."""

    def damage(path: Path, other: Path, chooser: random.Random) -> None:
        lines = path.read_bytes().splitlines(True) if path.suffix == ".jsonl" else [path.read_bytes()]
        at = chooser.randrange(len(lines))
        try:
            whole = json.loads(lines[at])
        except ValueError:
            whole = {"": None}
        places: list[tuple[Any, Any]] = []

        def walk(node: Any) -> None:
            for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
                places.append((node, key))
                if isinstance(inner, dict | list):
                    walk(inner)

        walk(whole)
        node, key = chooser.choice(places)
        if value is ...:
            del node[key]
        else:
            node[key] = value
        lines[at] = json.dumps(whole).encode() + b"\n"
        path.write_bytes(b"".join(lines))

    return damage


DAMAGES: dict[str, Damage] = {
    "missing": lambda path, other, chooser: path.unlink(),
    "empty": _bytes(lambda content, chooser: b""),
    "one byte": _bytes(lambda content, chooser: content[:1]),
    "half": _bytes(lambda content, chooser: content[: len(content) // 2]),
    "nearly whole": _bytes(lambda content, chooser: content[:-2]),
    "cut": _bytes(lambda content, chooser: content[: chooser.randrange(len(content) + 1)]),
    "flipped": _bytes(_flip),
    "flipped again": _bytes(_flip),
    "flipped at the end": _bytes(lambda content, chooser: content[:-1] + bytes([content[-1] ^ 1]) if content else b"x"),
    "zeros": _bytes(lambda content, chooser: bytes(len(content))),
    "noise": _bytes(lambda content, chooser: chooser.randbytes(len(content))),
    "more": _bytes(lambda content, chooser: content + b"more"),
    "twice": _bytes(lambda content, chooser: content + content),
    "a line of noise": _bytes(lambda content, chooser: content.replace(b"\n", b"\n\xff\xfe\n", 1)),
    "no JSON object": _bytes(lambda content, chooser: b"[1]"),
    "null": _bytes(lambda content, chooser: b"null"),
    "an empty object": _bytes(lambda content, chooser: b"{}"),
    "deep": _bytes(lambda content, chooser: b"[" * 100_000),
    "a long number": _bytes(lambda content, chooser: b'{"step": ' + b"9" * 5000 + b"}\n"),
    "another run's": lambda path, other, chooser: path.write_bytes(other.read_bytes()) and None,
    "a value is null": _value(None),
    "a value is a list": _value([{}]),
    "a value is text": _value("x"),
    "a value is negative": _value(-1),
    "a value is missing": _value(...),
    "a folder": _instead(lambda path, real: path.mkdir()),
    "a pipe": _instead(lambda path, real: os.mkfifo(path)),
    "a socket": _instead(_socket),
    "a link to nothing": _instead(lambda path, real: path.symlink_to(path.parent / "nothing")),
    "a link to itself": _instead(lambda path, real: path.symlink_to(path.name)),
    "forbidden": lambda path, other, chooser: path.chmod(0),
}
