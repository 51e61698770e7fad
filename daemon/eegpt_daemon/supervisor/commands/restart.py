"""`restart`: stop the current run and begin a new one from step 0, with its configuration or another."""

from __future__ import annotations

from pathlib import Path

from eegpt_daemon.supervisor.commands.action import CommandContext
from eegpt_daemon.supervisor.commands.new_attempt import NewAttempt
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.control import Command
from eegwatch.run.folder import CONFIG


class Restart(NewAttempt):
    """Done at the first step of the new run."""

    end_reason = "restarted"

    @classmethod
    def refuse(cls, command: Command, standing: CommandContext) -> str | None:
        problem = standing.misdirected(command)
        if problem is not None or standing.run is None:
            return problem
        try:
            config_for(command, standing.run)
        except ConfigError as error:
            return str(error)
        return None

    def begin_attempt(self, run: WatchedRun) -> int:
        config = config_for(self.command, run)
        notes = [f"a fresh restart of {run.run_id}"]
        self.runs.begin(config, parent=run.run_id, command=self.command.id, notes=notes)
        return 1


def config_for(command: Command, run: WatchedRun) -> Config:
    """The configuration of a restart: the file named, or the run's own without any injected fault.

    Raises ConfigError.
    """
    if command.config is not None:
        config = configuration.load(Path(command.config))
        config.experiment.series = None  # of a file that was copied from a run's folder
        return config
    config = configuration.load(run.folder / CONFIG, expand=False)
    config.inject = None
    return config
