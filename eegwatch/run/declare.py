"""The schedule of a configuration, put into a log that declares none: our own logs without one, and other people's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from eegwatch.run import config as configuration
from eegwatch.run.config import ConfigError
from eegwatch.run.records import Run, RunRecord, Step
from eegwatch.schedule import as_dict


class Declaration:
    """Passes records on, a `run` record with the configuration's schedule ahead of those that have none.

    `bare` is set by a log that has no `run` record of its own. `steps_per_epoch` overrides what the log says.
    """

    def __init__(self, path: Path | None, steps_per_epoch: int | None, run_id: str) -> None:
        self.path, self.steps_per_epoch, self.run_id = path, steps_per_epoch, run_id
        self.config = configuration.load(path, expand=False) if path else None
        self.bare = False
        self.applied = False  # the schedule that holds was declared here, not by the log
        self._begun = False

    def apply(self, records: Iterable[RunRecord]) -> Iterator[RunRecord]:
        """Raises ConfigError if neither the log nor the caller says how long an epoch is."""
        for record in records:
            if isinstance(record, Run):
                self._begun = True
                self.applied = False
                if (
                    self.config is not None
                    and record.schedule is None
                    and (record.steps_per_epoch or self.steps_per_epoch)
                ):
                    yield self._declare(record, record.steps_per_epoch)
                    continue
            elif isinstance(record, Step) and not self._begun and self.config is not None:
                self._begun = self.bare = True
                begin = Run(time=record.time, run_id=self.run_id, step=record.step - 1)
                yield self._declare(begin, self._epoch_length(record))
            yield record

    def _epoch_length(self, step: Step) -> int | None:
        """Steps an epoch, from a record's own counters: epoch * B + batch == step."""
        if step.epoch and step.batch and (step.step - step.batch) % step.epoch == 0:
            return (step.step - step.batch) // step.epoch
        return None

    def _declare(self, run: Run, known: int | None) -> Run:
        assert self.config is not None
        per_epoch = self.steps_per_epoch or known
        if per_epoch is None:
            raise ConfigError(
                f"{self.path}: how long an epoch is, neither it nor the log says: give --steps-per-epoch N"
            )
        schedule = configuration.schedule_of(self.config, per_epoch, str(self.path))
        self.applied = True
        epochs = self.config.training.max_epochs
        target = self.config.target_metrics.auroc
        return msgspec.structs.replace(
            run,
            schedule=as_dict(schedule),
            steps_per_epoch=per_epoch,
            epochs=epochs,
            total_steps=epochs * per_epoch,
            accumulate=self.config.training.gradient_accumulation_steps,
            batch_size=self.config.data.batch_size,
            target=run.target or ({"auroc": target} if target is not None else None),
            expected=configuration.expected_rates(self.config) or None,
            detectors=dict(self.config.detectors),
        )
