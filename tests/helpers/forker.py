"""Runs ganlab's command line in forks of one process that has imported torch and the plugins: python forker.py < jobs.

Reads one job per line, {"words": [...], "log": path, ...}, forks, prints the child's id, waits, and prints its exit
code, or minus the signal's number if a signal ended it. The words are ganlab's. A job may contain:

- "python": true if the words are the interpreter's, `-m MODULE WORD ...` or `FILE WORD ...`;
- "errors": the file that receives stderr, which goes to the log otherwise;
- "folder": the working directory;
- "environment": variables of the environment;
- "paths": folders that sys.path begins with; "site": a folder of packages that sys.path ends with, and its *.pth files;
- "at": [number, n]: the child gets the signal at its n-th call of any function;
- "signals": [[number, "file.py:function", nth, after], ...]: the child gets the signal `after` calls after the nth call
  of the function;
- "counted": the file that receives the number of calls before each step;
- "ignored": the signals that the child ignores from its start;
- "largest_file": the largest size of a file in bytes, as on a full disk.

{"images": [spec, ...]} is no job: each source of the specs reads one image, so that every later fork inherits what the
source keeps in memory.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import runpy
import signal
import site
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import ganlab
from ganlab.cli.commands import main
from ganlab.components.registry import registry
from ganlab.system.build import build_sources

for slow in ("ganlab.display.terminal", "ganlab.experiment", "torch._dynamo"):
    # every optimizer imports torch._dynamo
    import_module(slow)


KEYS = {"words", "log", "python", "errors", "folder", "environment", "paths", "site"}
KEYS |= {"at", "signals", "counted", "ignored", "largest_file"}


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


def run(words: list[str]) -> None:
    """Does what `python WORD ...` does."""
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        runpy.run_path(words[0], run_name="__main__")


def child(job: dict[str, Any]) -> int:
    assert job.keys() <= KEYS, job
    for number, path in ((1, job["log"]), (2, job.get("errors", job["log"]))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(job.get("folder", "."))
    os.environ.update(job.get("environment", {}))
    if job.keys() & {"paths", "site"}:
        # other plugins may be there
        registry.cache_clear()
    sys.path[:0] = job.get("paths", [])
    if "site" in job:
        site.addsitedir(job["site"])
    if "largest_file" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    # tests that a shell starts in the background inherit an ignored SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in job.get("ignored", []):
        signal.signal(number, signal.SIG_IGN)
    counter = CallCounter(job)
    if job.keys() & {"at", "signals", "counted"}:
        sys.setprofile(counter)
    try:
        (run if job.get("python") else main)(job["words"])
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.setprofile(None)
        if job.get("python"):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        if "counted" in job:
            Path(job["counted"]).write_text(json.dumps(counter.marks))
    return 0


def serve() -> None:
    # imports the plugins
    registry()
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "images" in job:
            for spec in map(ganlab.load_spec, job["images"]):
                for domain, source in build_sources(spec).items():
                    source.image(source.keys(domain)[0], spec.data.size)
            print("ready", flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            try:
                code = child(job)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                code = 70
            sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
    # torch takes a second to exit
    os._exit(0)
