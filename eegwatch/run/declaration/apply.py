"""The schedule of a configuration, put into a log that declares none: our own logs without one, and other people's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path

import msgspec

from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.declaration import hyperparameter_files, nearby_files
from eegwatch.run.declaration.hyperparameters import Hyperparameters, interpret
from eegwatch.run.declaration.schedule_line import ScheduleLine
from eegwatch.run.records import Run, RunRecord, Step
from eegwatch.schedule import as_dict

Declared = Path | ScheduleLine  # a configuration, ours or another program's, or what --schedule said


def source_of(declared: Declared | None) -> Config | Hyperparameters | ScheduleLine | None:
    """The declaration that the user named, read and checked. Raises ConfigError with one line."""
    if declared is None or isinstance(declared, ScheduleLine):
        return declared
    tree = (
        hyperparameter_files.read(declared) if declared.suffix in hyperparameter_files.NOT_OURS else _tree_of(declared)
    )
    known = interpret(tree, str(declared))
    if known is not None:
        return known
    if declared.suffix in hyperparameter_files.NOT_OURS:
        raise ConfigError(f"{declared}: no learning-rate schedule is read off it; say it with --schedule")
    return configuration.load(declared, expand=False)


def _tree_of(path: Path) -> object:
    """The data of a YAML file, or nothing where it is not readable as one: our own loader then says what is wrong."""
    try:
        return hyperparameter_files.read(path)
    except ConfigError:
        return None


class Declaration:
    """Passes records on, a `run` record with the configuration's schedule ahead of those that have none.

    `bare` is set by a log that has no `run` record of its own. `steps_per_epoch` overrides what the log says.
    """

    def __init__(
        self, path: Declared | None, steps_per_epoch: int | None, run_id: str, log: Path | None = None
    ) -> None:
        """`log`: another program's log, whose hyperparameters beside it are looked at where no `path` is given."""
        self.path, self.steps_per_epoch, self.run_id = path, steps_per_epoch, run_id
        self.config = source_of(path)
        self.log = log if path is None else None
        self.remark: str | None = None  # of a file beside the log that its records contradict
        self.bare = False
        self.applied = False  # the schedule that holds was declared here, not by the log
        self._started = False

    def apply(self, records: Iterable[RunRecord]) -> Iterator[RunRecord]:
        """Raises ConfigError if neither the log nor the caller says how long an epoch is."""
        return self._by_what_lies_beside(list(records)) if self.log is not None else self._by_config(records)

    @property
    def declares(self) -> bool:
        """May records come out other than they went in?"""
        return self.config is not None or self.log is not None

    def _by_what_lies_beside(self, records: list[RunRecord]) -> Iterator[RunRecord]:
        assert self.log is not None
        for i, record in enumerate(records):
            if isinstance(record, Run):
                self.applied = False
                if record.schedule is None:
                    after = takewhile(lambda one: not isinstance(one, Run), records[i + 1 :])
                    steps = [one for one in islice(after, 4 * nearby_files.LOOKED_AT) if isinstance(one, Step)]
                    schedule, self.remark = nearby_files.agreeing(self.log, record, steps)
                    if schedule is not None:
                        self.applied = True
                        yield msgspec.structs.replace(record, schedule=schedule)
                        continue
            yield record

    def _by_config(self, records: Iterable[RunRecord]) -> Iterator[RunRecord]:
        for record in records:
            if isinstance(record, Run):
                self._started = True
                self.applied = False
                known = record.steps_per_epoch or self.steps_per_epoch or not isinstance(self.config, Config)
                if self.config is not None and record.schedule is None and known:
                    yield self._declare(record, record.steps_per_epoch)
                    continue
            elif isinstance(record, Step) and not self._started and self.config is not None:
                self._started = self.bare = True
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
        if not isinstance(self.config, Config):
            return self._declare_other(run, per_epoch, self.config)
        if per_epoch is None:
            raise ConfigError(
                f"{self.path}: neither it nor the log gives the length of an epoch: add --steps-per-epoch N"
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

    def _declare_other(self, run: Run, per_epoch: int | None, source: Hyperparameters | ScheduleLine) -> Run:
        """The schedule of another program's hyperparameters, or of --schedule; the rest of the record stays."""
        schedule = source.declare(run, per_epoch)
        if isinstance(source, ScheduleLine):
            per_epoch = source.given.get("steps_per_epoch") or per_epoch
        if schedule.get("unit") == "epoch" and not per_epoch:
            raise ConfigError(f"{source}: it counts epochs: give --steps-per-epoch N")
        self.applied = True
        total = run.total_steps or schedule["total_steps"] * (
            (per_epoch or 1) if schedule.get("unit") == "epoch" else 1
        )
        return msgspec.structs.replace(run, schedule=schedule, steps_per_epoch=per_epoch, total_steps=total)
