"""Runs trials as tasks of a Ray cluster: one on this machine that ends with the comparison, or one that exists.

Imports no torch, because the processes of the cluster import it too.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab import files
from ganlab.comparison.processes import End, LocalProcess
from ganlab.errors import RunError, SpecError, one_line
from ganlab.runs.lock import is_locked

if TYPE_CHECKING:
    from ganlab.comparison.trials import Trial

_WAITS = "waits for room in the Ray cluster, as a task of job"
"""The first line of a trial's log, before the number of the job."""

_MOVES = 100
"""The most machines that a trial may lose."""

_PAUSE = 0.2
"""Seconds between two looks at a process."""

_PATIENCE = 300.0
"""Seconds for which a trial waits until the process that trained it before has ended."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # the address of the only node is 127.0.0.1 then, also on Linux, so that no other machine reaches it
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # a busy machine starts the agents of a node slowly
    "RAY_agent_register_timeout_ms": "300000",
}
"""Settings of a cluster on this machine alone."""


def check_ray(on: str) -> None:
    """Raises SpecError if `on` is not "ray" or "ray://HOST:PORT", or if Ray is not installed."""
    if not re.fullmatch(r"ray(://[^/]+)?", on):
        raise SpecError(f"--on: {on!r} is not allowed: it should be ray, or ray://HOST:PORT of a Ray cluster")
    _ray(on)


def _ray(on: str) -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise SpecError(f"--on {on}: needs the package ray; pip install 'ganlab[cluster]'") from error


@contextmanager
def on_ray(on: str) -> Iterator[Callable[[Trial], RayProcess]]:
    """Connects to a Ray cluster and yields the function that starts a trial there.

    "ray" is the cluster that the variable RAY_ADDRESS names, otherwise a new one on this machine. Raises RunError if it
    can't be reached.
    """
    address = os.environ.get("RAY_ADDRESS", "") if on == "ray" else on
    if not address:
        os.environ.update(ENVIRONMENT)
    ray = _ray(on)
    # a system limits the lengths of sockets' paths, so the folder is not inside the comparison's
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        own: dict[str, Any] = {"address": "local", "include_dashboard": False, "_temp_dir": folder}
        try:
            ray.init(**({"address": address} if address else own), log_to_driver=False, logging_level="ERROR")
        except Exception as error:
            raise RunError(f"--on {on}: the Ray cluster can't be reached: {one_line(error)}") from error
        try:
            job = f"{_WAITS} {ray.get_runtime_context().get_job_id()}\n"
            task = ray.remote(_run_task)
            yield lambda trial: RayProcess(ray, task, trial, job)
        finally:
            ray.shutdown()


class RayProcess:
    """A trial as a task of a Ray cluster. If its machine is lost, the task runs again on another one."""

    def __init__(self, ray: Any, task: Any, trial: Trial, first_line: str) -> None:
        """Hands a trial to the cluster. A machine that reads `first_line` in its log shares the storage."""
        self._ray, self._log, self._first = ray, trial.log, first_line
        with files.writing(trial.log):
            trial.log.parent.mkdir(parents=True, exist_ok=True)
            trial.log.write_text(first_line)
        needs = task.options(num_cpus=trial.cpus, num_gpus=trial.gpus, max_retries=_MOVES, name=str(trial))
        self._result = needs.remote(trial.words, str(trial.log.absolute()), str(Path.cwd()), trial.folder, first_line)

    @property
    def begun(self) -> bool:
        return not self._log.exists() or self._log.stat().st_size > len(self._first)

    def poll(self) -> End | None:
        """Returns None while the task waits or runs."""
        try:
            if not self._ray.wait([self._result], timeout=0)[0]:
                return None
            end: End = self._ray.get(self._result)
        except self._ray.exceptions.RayError as error:
            return End(f"Ray ended the task: {one_line(error)}", lost=True)
        except ConnectionError as error:
            raise RunError(f"the connection to the Ray cluster was lost: {one_line(error)}") from error
        return end

    def stop(self) -> None:
        """Lets the run save its state and end. A task that still waits never starts."""
        self._ray.cancel(self._result)

    def kill(self) -> None:
        """Ends the task at once, if it still runs."""
        self._ray.cancel(self._result, force=True)


def _run_task(*asked: Any) -> End:
    """Calls `run_here` in a process of the cluster, which knows its node."""
    return run_here(import_module("ray").get_runtime_context().get_node_id(), *asked)


def run_here(node: str, words: Sequence[str], log: str, working: str, folder: str, first_line: str) -> End:
    """Runs `ganlab` with some words on the machine of the cluster that calls it.

    KeyboardInterrupt, with which Ray cancels a task, lets the run save its state.

    Args:
        node: Ray's name of the machine.
        words: The arguments of `ganlab`.
        log: The absolute path of the file for what it prints, which begins with `first_line` if the storage is shared.
        working: The working folder.
        folder: The run folder.
    """
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            shared = file.readline() == first_line
    except OSError:
        shared = False
    if not shared:
        return End(
            f"{socket.gethostname()} has another {log} than the machine that compares, or none: trials on Ray need"
            " storage that all machines share, under the same path",
            lost=True,
        )
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"runs on {socket.gethostname()}, Ray's node {node}\n")
    # the machine that Ray calls lost may only be out of reach
    until = time.monotonic() + _PATIENCE
    while is_locked(Path(working) / folder) and time.monotonic() < until:
        time.sleep(_PAUSE)
    process = LocalProcess(words, Path(log), Path(working))
    try:
        while (end := process.poll()) is None:
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        process.stop()
        while (end := process.poll()) is None:
            time.sleep(_PAUSE)
    finally:
        process.kill()
    return end
