"""Trials that run in the process of the test, which has imported torch already."""

from __future__ import annotations

import shutil
from pathlib import Path

import ganlab
from ganlab import GanlabError, Interrupted, Trial
from ganlab.comparison.processes import End
from helpers.callbacks import Recording, stop


class InThisProcess:
    """A trial that has run in this process. Stands in for `ganlab.comparison.processes.start`."""

    begun = True
    interrupted: str | None = None
    """The folder of the trial that a signal ends after its second step."""
    trained: dict[tuple[str, ...], str] | None = None
    """{changes of a trial: its run}, copied if a later search begins the same trial; None to train every trial."""

    def __init__(self, trial: Trial) -> None:
        killed = trial.folder == self.interrupted
        done = None if self.trained is None else self.trained.get(trial.set)
        if done is not None and not killed and not Path(trial.folder).exists():
            shutil.copytree(done, trial.folder)
            self._end = End()
            return
        try:
            ganlab.run(trial.spec, trial.set, trial.folder, callback=Recording(2, stop) if killed else None)
            if self.trained is not None:
                self.trained[trial.set] = trial.folder
            self._end = End()
        except GanlabError as error:
            self._end = End(str(error), isinstance(error, Interrupted))

    def poll(self) -> End:
        return self._end

    def stop(self) -> None:
        """Nothing is left to stop."""

    def kill(self) -> None:
        """Nothing is left to kill."""
