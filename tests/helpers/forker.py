"""Runs ganlab's command line in forks of one process that has imported torch: python forker.py SPEC ... < jobs.

Each source of the specs reads one image before the forks, so that every fork inherits what the source keeps in memory.

Reads one job per line, {"words": [...], "log": path, ...}, forks, prints the child's id, waits, and prints its exit
code, or minus the signal's number if a signal ended it. A job may contain:

- "at": [number, n]: the child gets the signal at its n-th call of any function;
- "signals": [[number, "file.py:function", nth, after], ...]: the child gets the signal `after` calls after the nth call
  of the function;
- "counted": the file that receives the number of calls before each step;
- "largest_file": the largest size of a file in bytes, as on a full disk.
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
from ganlab.cli.commands import main
from ganlab.system.build import build_sources

for slow in ("ganlab.display.terminal", "ganlab.experiment", "torch._dynamo"):
    # every optimizer imports torch._dynamo
    import_module(slow)


class CallCounter:
    """A profiler that counts calls and sends the job's signals."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.due: dict[int, int] = {}
        if "at" in job:
            number, call = job["at"]
            self.due[call] = number
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
            if name == "trainer.py:step":
                self.marks.append(self.calls)
            if (found := self.signals.pop((name, self.seen[name]), None)) is not None:
                number, after = found
                self.due[self.calls + after] = number
        if (number := self.due.pop(self.calls, None)) is not None:
            os.kill(os.getpid(), number)


def child(job: dict[str, Any]) -> int:
    for number, path in ((1, job["log"]), (2, job.get("errors", job["log"]))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(job.get("folder", "."))
    sys.path[:0] = job.get("paths", [])
    if "largest_file" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    # tests that a shell starts in the background inherit an ignored SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    counter = CallCounter(job)
    if job.keys() & {"at", "signals", "counted"}:
        sys.setprofile(counter)
    try:
        main(job["words"])
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        if "counted" in job:
            Path(job["counted"]).write_text(json.dumps(counter.marks))
    return 0


def serve(specs: list[str]) -> None:
    for spec in map(ganlab.load_spec, specs):
        for domain, source in build_sources(spec).items():
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
    # torch takes a second to exit
    os._exit(0)
