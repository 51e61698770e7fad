"""When a trainer writes checkpoints, in which order (log, file, record), and which checkpoints it keeps.

A checkpoint is written before an evaluation and again with the scores after it: if an evaluation is interrupted, no
step is lost, and the next attempt first repeats the evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from eegpt_daemon import crash_points
from eegpt_daemon.link import Attempt, Link, NullLink
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.preparation import Prepared
from eegwatch.run import config as configuration
from eegwatch.run.folder import file_hash
from eegwatch.run.records import Checkpoint
from eegwatch.schedule import as_dict


@dataclass
class EvaluationState:
    """Results of the evaluations so far; part of a checkpoint.

    `best`: the highest score, signed so that higher is better; `waited`: evaluations since; `ranking`: (score, path) of
    the best checkpoints; `evaluated`: the step of the last evaluation; `finishing`: the reason for which only the
    official evaluation is still to come.
    """

    best: float = -np.inf
    waited: int = 0
    ranking: list[tuple[float, str]] = field(default_factory=list)
    evaluated: int = 0
    finishing: str | None = None

    @classmethod
    def of(cls, state: dict[str, Any] | None) -> EvaluationState:
        """As a checkpoint holds it; one of 0.1 was written after its evaluation."""
        if state is None:
            return cls()
        ranking = [(float(value), str(path)) for value, path in state["ranking"]]
        evaluated = int(state.get("evaluated", state["step"]))
        return cls(state["best"], state["waited"], ranking, evaluated, state.get("finishing"))


class Saver:
    """One attempt's checkpoints. `saved_step`: the newest one's; `saved_at`: monotonic seconds."""

    def __init__(self, prepared: Prepared, attempt: Attempt, link: Link | NullLink, journal: Journal) -> None:
        self.prepared, self.attempt, self.link, self.journal = prepared, attempt, link, journal
        self.standing = EvaluationState.of(prepared.state)
        self.saved_step = prepared.step  # resumed from there, or nothing to save yet
        self.saved_at = time.monotonic()
        self.keep = list(attempt.keep)
        self._newest: Checkpoint | None = None
        self.noted: Callable[[], None] = lambda: None  # called once a checkpoint of another step is written
        if attempt.checkpoint is not None and prepared.processes.leads:
            path = journal.home.path / attempt.checkpoint
            epoch = self.saved_step // prepared.steps_per_epoch
            self._newest = Checkpoint(
                time=time.time(), step=self.saved_step, epoch=epoch, path=attempt.checkpoint, sha256=file_hash(path)
            )

    def save(self, step: int, command: str | None = None) -> None:
        """A checkpoint of this step, unless there is one: then that answers the command. A collective."""
        if self.saved_step != step:
            self.link.phase("checkpointing", step)
            self._write(step, command=command)
        elif command is not None:
            self.keep_for(command)

    def refresh(self, step: int, *, best: bool) -> None:
        """The checkpoint of this step once more, with what its evaluation has led to. A collective.

        Its record is written before the rename: whichever of the two files a crash leaves has a hash in the log.
        """
        self._write(step, best=best, before_rename=True)

    def keep_for(self, command: str) -> None:
        """Log the newest checkpoint as the answer to a command: it is kept from then on."""
        if self._newest is not None:
            self._record(msgspec.structs.replace(self._newest, time=time.time(), command=command))

    def _write(self, step: int, *, best: bool = False, before_rename: bool = False, command: str | None = None) -> None:
        prepared = self.prepared
        self.journal.sync(step)
        learned = prepared.learner.state()  # of all processes
        another = step != self.saved_step
        self.saved_at, self.saved_step = time.monotonic(), step
        if not prepared.processes.leads:
            return
        epoch = step // prepared.steps_per_epoch
        standing = self.standing
        state = learned | {
            "version": checkpoints.VERSION,
            "run_id": prepared.run_id,
            "attempt": self.attempt.attempt,
            "step": step,
            "epoch": epoch,
            "batch": step % prepared.steps_per_epoch,
            "position": float(prepared.injected.last_epoch) if prepared.injected is not None else float(step),
            "total_steps": prepared.total,
            "steps_per_epoch": prepared.steps_per_epoch,
            "schedule": msgspec.json.encode(as_dict(prepared.schedule)).decode(),
            "overrides": self.attempt.overrides,
            "sampler": {"seed": prepared.config.experiment.seed},
            "best": float(standing.best),
            "ranking": [[value, path] for value, path in standing.ranking],
            "waited": standing.waited,
            "evaluated": standing.evaluated,
            "finishing": standing.finishing,
            "world_size": prepared.processes.size,
            "config_hash": configuration.training_hash(prepared.config),
            "data_hash": prepared.data.hash(),
            "features": prepared.features,
        }
        written: list[Checkpoint] = []

        def about_to_rename(path: str, sha256: str) -> None:
            saved = Checkpoint(time=time.time(), step=step, epoch=epoch, path=path, sha256=sha256)
            written.append(msgspec.structs.replace(saved, best=best, command=command))
            if before_rename:
                self.journal.write(written[0])
                self.journal.sync(step)

        checkpoints.save(self.journal.home.path, step, state, about_to_rename)
        self._record(written[0], logged=before_rename)
        if another:
            self.noted()

    def _record(self, saved: Checkpoint, *, logged: bool = False) -> None:
        self._newest = saved
        if not logged:
            self.journal.write(saved)
            self.journal.sync(saved.step)
        crash_points.point("checkpoint.after_record")
        if saved.command is not None:
            self.keep.append(saved.path)
        ranked = {name for _, name in self.standing.ranking}
        checkpoints.prune(self.journal.home.path, saved.step, ranked | set(self.keep))
