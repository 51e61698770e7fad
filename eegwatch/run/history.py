"""A run in memory: its steps as numpy columns (float64 rates and times, float32 the rest), its attempts and events.

An attempt that starts at step k supersedes earlier records above k: `History` shows the newest attempt's line and
keeps the rest in `superseded`. Named metrics cost what is logged of them: each is a series of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.records import (
    Checkpoint,
    End,
    Eval,
    Finding,
    Intent,
    Progress,
    Run,
    ScheduleChange,
    System,
    Watch,
)

COLUMNS: dict[str, type[np.generic]] = {
    "step": np.int64,
    "time": np.float64,
    "lr": np.float64,  # full precision: the proof of a stuck rate needs every bit
    "position": np.float64,
    "loss": np.float32,
    "grad_norm": np.float32,
    "samples_per_s": np.float32,
    "skipped": np.int32,
}
PASSING = {"position", "skipped"}  # what only the diagnosis needs, as it comes by: not kept (12 of 48 bytes a step)
KEPT = {name: kind for name, kind in COLUMNS.items() if name not in PASSING}
KEPT_SYSTEM = 512
KEPT_WATCH = 512  # records of the watcher: the diagnosis reads each as it comes by
Metrics = dict[str, tuple[NDArray[np.int32], NDArray[np.float64]]]  # name -> (rows of the block, values)
NOT_LOGGED = np.uint32(0x7FC00001)  # a NaN of its own: this step's loss was not logged, unlike one that is NaN
LOGGED_NAN_64, LOGGED_NAN_32 = np.uint64(0x7FF8000000000002), np.uint32(0x7FC00002)  # a rate or norm that was NaN


@dataclass
class StepBlock:
    """Consecutive step records as columns, all of one attempt and one length.

    `lrs`: the rates of all parameter groups, (steps, groups); None where each record left them out, so that each group
    has the rate `lr`. A group that a record did not name is NaN there.
    """

    step: NDArray[np.int64]
    time: NDArray[np.float64]
    lr: NDArray[np.float64]
    position: NDArray[np.float64]
    loss: NDArray[np.float32]
    grad_norm: NDArray[np.float32]
    samples_per_s: NDArray[np.float32]
    skipped: NDArray[np.int32]
    lrs: NDArray[np.float64] | None = None
    metrics: Metrics = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def plain(self) -> bool:
        """Whether it has neither rates of groups nor named metrics."""
        return self.lrs is None and not self.metrics

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> StepBlock:
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        lrs = None if self.lrs is None else self.lrs[rows]
        return StepBlock(**columns, lrs=lrs, metrics=self._metrics_of(rows) if self.metrics else {})

    def _metrics_of(self, rows: slice | NDArray[np.bool_]) -> Metrics:
        new = np.full(len(self), -1, np.int32)  # old row -> new row
        new[rows] = np.arange(np.count_nonzero(rows) if isinstance(rows, np.ndarray) else len(new[rows]))
        taken: Metrics = {}
        for name, (at, values) in self.metrics.items():
            kept = new[at] >= 0
            if kept.any():
                taken[name] = (new[at][kept], values[kept])
        return taken

    @staticmethod
    def joined(first: StepBlock, second: StepBlock) -> StepBlock:
        """Both, one after the other."""
        columns = {n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in COLUMNS}
        lrs = None
        if first.lrs is not None or second.lrs is not None:
            groups = max(0 if b.lrs is None else b.lrs.shape[1] for b in (first, second))
            lrs = np.concatenate([group_rates(first.lr, first.lrs, groups), group_rates(second.lr, second.lrs, groups)])
        metrics: Metrics = {}
        for name in first.metrics.keys() | second.metrics.keys():
            at, values = first.metrics.get(name, _NO_METRIC)
            later, more = second.metrics.get(name, _NO_METRIC)
            rows = np.concatenate([at, later + np.int32(len(first))])
            metrics[name] = (rows, np.concatenate([values, more]))
        return StepBlock(**columns, lrs=lrs, metrics=metrics)


_NO_METRIC = (np.empty(0, np.int32), np.empty(0, np.float64))


def group_rates(
    lr: NDArray[np.float64], lrs: NDArray[np.float64] | None, groups: int, known: int | None = None
) -> NDArray[np.float64]:
    """The rates of `groups` parameter groups, (steps, groups): those logged, else `lr` for each of the `known` groups.

    NaN where a group's rate is not known: it was added later, or another writer's records name fewer.
    """
    rates = np.full((len(lr), groups), np.nan)
    if lrs is None:
        rates[:, : groups if known is None else known] = lr[:, None]
    else:
        rates[:, : lrs.shape[1]] = lrs
    return rates


def logged_nan(values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Mask of the rates or gradient norms that were logged as NaN, unlike those that were not logged."""
    if values.dtype == np.float64:
        return np.asarray(values.view(np.uint64) == LOGGED_NAN_64)
    return np.asarray(values.view(np.uint32) == LOGGED_NAN_32)


def logged(loss: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the losses that were logged."""
    return np.asarray(loss.view(np.uint32) != NOT_LOGGED)


Item = StepBlock | Run | Eval | ScheduleChange | Watch | Intent | Checkpoint | System | Finding | Progress | End


@dataclass
class Superseded:
    """Steps of an earlier attempt that a resume did again."""

    attempt: int
    step: NDArray[np.int64]
    lr: NDArray[np.float64]
    loss: NDArray[np.float32]


class MetricSeries:
    """One named metric of the training steps: its steps, times and values, in the order of the log."""

    def __init__(self) -> None:
        self._step, self._time = np.empty(64, np.int64), np.empty(64, np.float64)
        self._value = np.empty(64, np.float64)
        self.length = 0

    def append(self, step: NDArray[np.int64], time: NDArray[np.float64], value: NDArray[np.float64]) -> None:
        need = self.length + len(step)
        for name, more in (("_step", step), ("_time", time), ("_value", value)):
            column = getattr(self, name)
            if len(column) < need:
                grown = np.empty(max(need, 2 * len(column)), column.dtype)
                grown[: self.length] = column[: self.length]
                setattr(self, name, grown)
            getattr(self, name)[self.length : need] = more
        self.length = need

    def cut(self, step: int) -> None:
        """Remove the records above `step`, which a resume repeats."""
        self.length = int(np.searchsorted(self.step, step, side="right"))

    @property
    def step(self) -> NDArray[np.int64]:
        return self._step[: self.length]

    @property
    def time(self) -> NDArray[np.float64]:
        return self._time[: self.length]

    @property
    def value(self) -> NDArray[np.float64]:
        return self._value[: self.length]


@dataclass
class History:
    """Everything that is known about a run. It grows in `append` only."""

    attempts: list[Run] = field(default_factory=list)
    evals: list[Eval] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    system: list[System] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    progress: Progress | None = None
    end: End | None = None
    superseded: list[Superseded] = field(default_factory=list)
    schedules: list[ScheduleChange] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    watched: list[Watch] = field(default_factory=list)
    metrics: dict[str, MetricSeries] = field(default_factory=dict)
    last_time: float = 0.0
    length: int = 0
    _columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    _lrs: NDArray[np.float64] | None = None

    def append(self, item: Item) -> None:
        if isinstance(item, StepBlock):
            self._append_steps(item)
            if len(item):
                self.last_time = max(self.last_time, float(item.time.max()))
                self.progress = None
            return
        self.last_time = max(self.last_time, item.time)
        if isinstance(item, Run):
            self._supersede(item)
            self.attempts.append(item)
            self.end, self.progress = None, None
        elif isinstance(item, Eval):
            self.evals.append(item)
        elif isinstance(item, Checkpoint):
            self.checkpoints.append(item)
        elif isinstance(item, System):
            self.system.append(item)
            if len(self.system) > 2 * KEPT_SYSTEM:
                self.system[:KEPT_SYSTEM] = self.system[:KEPT_SYSTEM:2]  # the older ones at half the resolution
        elif isinstance(item, Finding):
            self.findings.append(item)
        elif isinstance(item, Progress):
            self.progress = item if item.done < item.total else None
        elif isinstance(item, ScheduleChange):
            self.schedules.append(item)
        elif isinstance(item, Intent):
            self.intents.append(item)
        elif isinstance(item, Watch):
            self.watched.append(item)
            if len(self.watched) > 2 * KEPT_WATCH:
                self.watched[:KEPT_WATCH] = []
        else:
            self.end = item
            self.ends.append(item)

    def reserve(self, steps: int) -> None:
        """Reserve space for this number of steps: growth by doubling copies data and fragments the heap."""
        for name, kind in KEPT.items():
            if len(self._columns.get(name, ())) < steps and not self.length:
                self._columns[name] = np.empty(steps, kind)

    def clear(self) -> None:
        """Remove everything: the file was truncated or replaced, and is read anew."""
        self.__init__()  # type: ignore[misc]

    @property
    def begun(self) -> list[Run]:
        """The record with which each attempt began; a reader may give it again once it knows more of the run."""
        pairs = zip([None, *self.attempts], self.attempts, strict=False)
        return [run for before, run in pairs if before is None or before.attempt != run.attempt]

    @property
    def run(self) -> Run | None:
        """The newest attempt's `run` record."""
        return self.attempts[-1] if self.attempts else None

    @property
    def step_done(self) -> int:
        """Optimizer steps completed so far on the live line."""
        if self.length:
            return int(self.step[-1])
        return self.run.step if self.run else 0

    @property
    def step(self) -> NDArray[np.int64]:
        return self._column("step")  # type: ignore[return-value]

    @property
    def time(self) -> NDArray[np.float64]:
        return self._column("time")  # type: ignore[return-value]

    @property
    def lr(self) -> NDArray[np.float64]:
        return self._column("lr")  # type: ignore[return-value]

    @property
    def loss(self) -> NDArray[np.float32]:
        return self._column("loss")  # type: ignore[return-value]

    @property
    def samples_per_s(self) -> NDArray[np.float32]:
        return self._column("samples_per_s")  # type: ignore[return-value]

    @property
    def grad_norm(self) -> NDArray[np.float32]:
        return self._column("grad_norm")  # type: ignore[return-value]

    @property
    def lrs(self) -> NDArray[np.float64] | None:
        """The rates of all parameter groups, (steps, groups); None where no record names them apart from `lr`."""
        return None if self._lrs is None else self._lrs[: self.length]

    def _column(self, name: str) -> NDArray[np.generic]:
        column = self._columns.get(name)
        return np.empty(0, KEPT[name]) if column is None else column[: self.length]

    def _append_steps(self, block: StepBlock) -> None:
        need = self.length + len(block)
        for name, kind in KEPT.items():
            column = self._columns.get(name)
            if column is None or len(column) < need:
                grown = np.empty(max(1024, need, 2 * (0 if column is None else len(column))), kind)
                if column is not None:
                    grown[: self.length] = column[: self.length]
                self._columns[name] = column = grown
            column[self.length : need] = getattr(block, name)
        if block.lrs is not None or self._lrs is not None:
            self._append_lrs(block, need)
        for name, (rows, values) in block.metrics.items():
            self.metrics.setdefault(name, MetricSeries()).append(block.step[rows], block.time[rows], values)
        self.length = need

    def _append_lrs(self, block: StepBlock, need: int) -> None:
        """Grow the rates of the groups by `block`; before its first one, each declared group had the rate `lr`."""
        old = self._lrs
        groups = max(0 if old is None else old.shape[1], 0 if block.lrs is None else block.lrs.shape[1])
        if old is None or len(old) < need or old.shape[1] < groups:
            grown = np.empty((max(1024, need, 2 * (0 if old is None else len(old))), groups))
            before = None if old is None else old[: self.length]
            declared = len(self.run.groups) if self.run is not None and self.run.groups else 1
            grown[: self.length] = group_rates(self.lr, before, groups, min(declared, groups))
            self._lrs = old = grown
        old[self.length : need] = group_rates(block.lr, block.lrs, groups)

    def _supersede(self, run: Run) -> None:
        """Move live steps above the new attempt's start aside, with the evaluations and checkpoints made there."""
        self.checkpoints = [c for c in self.checkpoints if c.step <= run.step]
        self.schedules = []  # the new attempt's record says what holds
        for series in self.metrics.values():
            series.cut(run.step)
        if not self.length:
            return
        keep = int(np.searchsorted(self.step, run.step, side="right"))
        if keep < self.length:
            old = self.attempts[-1].attempt if self.attempts else 0
            rows = slice(keep, self.length)
            self.superseded.append(
                Superseded(old, self.step[rows].copy(), self.lr[rows].copy(), self.loss[rows].copy())
            )
            self.length = keep
        self.evals = [e for e in self.evals if e.step <= run.step]
