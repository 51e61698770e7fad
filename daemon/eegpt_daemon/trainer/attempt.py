"""One attempt at a run, from what the supervisor orders to the `end` record that says how it went."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from eegpt_daemon import crash_points
from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.link import SUPERVISOR_GONE, Attempt, Link, NullLink
from eegpt_daemon.model.encoder import EncoderError
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.loop import Loop
from eegpt_daemon.trainer.preparation import Preparation, Prepared, Stopped
from eegpt_daemon.trainer.privacy import Privacy
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegpt_daemon.trainer.saving import Saver
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.folder import CONFIG
from eegwatch.run.records import End
from eegwatch.schedule import ScheduleError

USER_ERRORS = (ConfigError, CorpusError, EncoderError, CheckpointError, ScheduleError)
ENDED_BY_ITSELF = ("completed", "early_stopped")


class Trainer:
    """One attempt at the run in `folder`. `run()` returns the exit code: 0 ended, 75 try again, 78 configuration."""

    def __init__(self, folder: Path, attempt: Attempt, link: Link | NullLink, processes: ProcessGroup) -> None:
        """Raises OSError where the run log cannot be written."""
        self.folder, self.attempt, self.link, self.processes = folder, attempt, link, processes
        self.journal = Journal(folder, leads=processes.leads)
        self.step = 0  # done so far, of the whole run
        self._loop: Loop | None = None

    def run(self) -> int:
        """Train to the end, a stop or an error; the `end` record says which."""
        error: str | None = None
        privacy: Privacy | None = None
        code = 0
        try:
            config = configuration.load(self.folder / CONFIG, expand=False)
            privacy = Privacy(config.data)
            privacy.quieten_warnings()
            self.journal.clean = privacy.clean
            reason = self._train(config, privacy)
        except USER_ERRORS as problem:
            reason, error, code = "failed", self.journal.clean(str(problem)), 78
            if self.processes.leads:
                print(f"eegpt-daemon: {error}", file=sys.stderr)
        except Stopped as stopped:
            reason = stopped.reason
        except Exception as problem:
            if privacy is None:
                raise
            privacy.trace(problem)
            error = privacy.clean(f"{type(problem).__name__}: {problem}")
            if self.processes.lost_another(problem):
                error = f"another process of this run is gone, trainer.log may say why ({error[:80]} …)"
            self._end("failed", error)
            return 1
        if reason == SUPERVISOR_GONE:
            reason, error, code = "stopped", SUPERVISOR_GONE, 75
        self._end(reason, error)
        self.link.phase("ended", self._step(), code=code)
        self.processes.leave()
        return code if self.processes.size == 1 else 0  # torch's launcher answers any other code with a traceback

    def _train(self, config: Config, privacy: Privacy) -> str:
        preparation = Preparation(self.folder, config, self.attempt, self.link, self.processes, self.journal)
        try:
            prepared = preparation.run(privacy)
        finally:
            self.step = preparation.step
        saver = Saver(prepared, self.attempt, self.link, self.journal)
        self._loop = self.make_loop(prepared, saver)
        return self._loop.run()

    def make_loop(self, prepared: Prepared, saver: Saver) -> Loop:
        asked = self.attempt.command is not None and self.attempt.ended in ENDED_BY_ITSELF
        return Loop(prepared, saver, self.link, self.journal, go_on_after_end=asked)

    def _step(self) -> int:
        return self.step if self._loop is None else self._loop.step

    def _end(self, reason: str, error: str | None) -> None:
        self.journal.write(End(time=time.time(), step=self._step(), reason=reason, error=error))
        self.journal.sync(self._step())
        crash_points.point("end.after_record")
