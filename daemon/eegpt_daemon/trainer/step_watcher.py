"""The watcher of silent errors on the trainer itself: what each optimizer step did, into the run log, on rank 0 alone.

The same watcher as `log.watch(model, optimizer)` of a RunLog (docs/silent_errors.md). What fails in it switches it off.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eegpt_daemon.data.dataset import TrainingData
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.preparation import Prepared
from eegwatch.run.records import Watch
from eegwatch.watching.declarations import Declarations
from eegwatch.watching.splits import Splits
from eegwatch.watching.watcher import Watcher


class WatchedTrainer:
    """Watches one attempt. `step`: tells the optimizer steps done so far."""

    follower = None  # the trainer reads its rates itself
    has_splits = False  # an attempt is a process of its own: no run before it has trained this model

    def __init__(
        self, prepared: Prepared, journal: Journal, folder: Path, attempt: int, step: Callable[[], int]
    ) -> None:
        self.name, self.folder, self.attempt = prepared.run_id, folder, attempt
        self.steps_per_epoch: int | None = prepared.steps_per_epoch
        self._step = step
        self._watcher: Watcher | None = None
        if not prepared.processes.leads:
            return
        for look, values in prepared.looks:
            journal.write(Watch(time=time.time(), step=step(), look=look, values=values))
        watcher = Watcher(self, journal.write, journal.say)
        clip = prepared.config.training.gradient_clip_val
        backbone = prepared.learner.network.backbone
        frozen: list[Any] = []
        if backbone is not None and prepared.config.model.backbone.freeze:
            frozen.append(backbone.encoder)
        accumulate = prepared.config.training.gradient_accumulation_steps
        try:
            watcher.watch(
                [prepared.learner.network],
                [prepared.learner.optimizer],
                [],
                Declarations(accumulate=accumulate if accumulate > 1 else 0, clip=clip or None, frozen=frozen),
            )
            self._watcher = watcher
            self._emit_splits(watcher, prepared.data)
        except Exception as error:  # whatever it is, it must not end the training
            watcher.give_up(error)

    def _emit_splits(self, watcher: Watcher, data: TrainingData) -> None:
        """Record the subjects of each split; a hash stands for a subject's id, which must not appear in the log."""
        splits = Splits()
        for name, windows in (("train", data.train), ("val", data.val), ("eval", data.test)):
            if windows is not None and windows.subjects:
                held = {windows.subjects[one] for one in np.unique(windows.recording).tolist()}
                ids = [hashlib.sha256(subject.encode()).hexdigest()[:12] for subject in held]
                watcher.emit("split", splits.add(name, ids))

    @property
    def step_done(self) -> int:
        """Optimizer steps done so far, of the whole run."""
        return self._step()

    def logged(self, step: int) -> None:
        """The record of a step has been written."""
        if self._watcher is not None:
            self._watcher.logged(step, None)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation."""
        if self._watcher is None:
            yield
            return
        with self._watcher.evaluating():
            yield

    def checkpointed(self) -> None:
        """A checkpoint of this step has been written."""
        if self._watcher is not None:
            self._watcher.checkpointed()

    def close(self) -> None:
        """Take everything off."""
        if self._watcher is not None:
            self._watcher.close()
