"""Trials that run in the process of the test, which has imported torch already."""

from __future__ import annotations

import ganlab
from ganlab import GanlabError, Interrupted, Trial
from ganlab.comparison.processes import End
from helpers.callbacks import Recording, stop


class InThisProcess:
    """A trial that has run in this process. Stands in for `ganlab.comparison.processes.start`."""

    begun = True
    interrupted: str | None = None
    """The folder of the trial that a signal ends after its second step."""

    def __init__(self, trial: Trial) -> None:
        killed = trial.folder == self.interrupted
        try:
            ganlab.run(trial.spec, trial.set, trial.folder, callback=Recording(2, stop) if killed else None)
            self._end = End()
        except GanlabError as error:
            self._end = End(str(error), isinstance(error, Interrupted))

    def poll(self) -> End:
        return self._end

    def stop(self) -> None:
        """Nothing is left to stop."""

    def kill(self) -> None:
        """Nothing is left to kill."""
