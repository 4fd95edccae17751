"""Runs ganlab's command line in processes of their own, with torch imported once: python forker.py SPEC ... < jobs.

What the sources of the specs keep in memory once they have given an image, every process finds there.

Reads a job a line, {"words": [...], "log": path, ...}, forks, prints the child's id, waits, prints its exit code
(minus the signal's number where one ended it). A job may say that the child sends itself signals, by what it does
and not by the clock:

- "killed_at": SIGKILL at its so-many-th call of any function;
- "signals": [[number, "file.py:function", nth, after], ...], so many calls after the nth call of that function;
- "counted": a file for the number of calls before each step;
- "largest_file": no file can grow beyond so many bytes, as on a full disk.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import ganlab
from ganlab.build import build_sources
from ganlab.cli import main
from ganlab.registry import registry

for slow in ("ganlab.console", "ganlab.laboratory", "torch._dynamo"):
    # the last is what every optimiser imports
    import_module(slow)


class Watch:
    """Counts calls, and sends signals when it has counted enough."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.due: dict[int, int] = {}
        if "killed_at" in job:
            self.due[job["killed_at"]] = signal.SIGKILL
        self.signals = {(name, nth): (number, after) for number, name, nth, after in job.get("signals", [])}
        self.calls = 0
        self.seen: Counter[str] = Counter()
        self.marks: list[int] = []

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event not in ("call", "c_call"):
            return
        self.calls += 1
        if event == "call":
            name = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_name}"
            self.seen[name] += 1
            if name == "engine.py:step":
                self.marks.append(self.calls)
            if (found := self.signals.pop((name, self.seen[name]), None)) is not None:
                number, after = found
                self.due[self.calls + after] = number
        if (number := self.due.pop(self.calls, None)) is not None:
            os.kill(os.getpid(), number)


def child(job: dict[str, Any]) -> int:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if "largest_file" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    # where a shell has started the tests in the background, they inherit a SIGINT that is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watch = Watch(job)
    if job.keys() & {"killed_at", "signals", "counted"}:
        sys.setprofile(watch)
    try:
        main(job["words"])
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        if "counted" in job:
            Path(job["counted"]).write_text(json.dumps(watch.marks))
    return 0


def serve(specs: list[str]) -> None:
    for spec in map(ganlab.load_spec, specs):
        for domain, source in build_sources(registry(), spec).items():
            source.image(source.keys(domain)[0], spec.data.size)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                code = child(json.loads(line))
            except BaseException:
                sys.excepthook(*sys.exc_info())
                code = 70
            sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
    # torch takes a second to leave
    os._exit(0)
