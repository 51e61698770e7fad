"""Rows -> our records: steps, evaluations, and the run that they belong to.

Values of one step that stand in several rows (loss and rate, as Lightning writes them) become one record. A step is
passed on when the next begins, or when the reader asks for all; a row that comes later for a step already passed on is
`late`: who follows the log then reads it anew and waits longer, so that the records do not depend on when it was read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from eegwatch.formats.counters import Counter, Restart
from eegwatch.formats.names import FIELDS, words_of
from eegwatch.formats.rows import Row
from eegwatch.run.records import Eval, Number, Run, RunRecord, Step, finite

MOST_METRICS = 500  # of one record: a row with more columns is a table of something else
OWN = ("loss", "lr", "grad_norm", "samples_per_s")  # fields of a Step; every other name is a metric


class RowReader:
    """Collects rows into records. `zero_based`: the log's steps count from 0 (Lightning's do), ours from 1."""

    def __init__(self, run_id: str, zero_based: bool | None = None, lr_precision: str | None = None) -> None:
        self.run_id, self.lr_precision = run_id, lr_precision
        self.counter = Counter(zero_based)
        self.late = False  # a row came for a step that had been passed on
        self.stated_total: int | None = None  # as the log says it, whatever its epochs come to
        self.total_steps: int | None = None
        self.steps_per_epoch: int | None = None
        self.notes: list[str] = []
        self._attempt = 1
        self._written: tuple[int | None, ...] | None = None
        self._passed = self._evaluated = 0  # the last step, and evaluation, that were passed on
        self._step: int | None = None
        self._train: dict[str, float] = {}
        self._rates: list[float] = []
        self._evals: list[tuple[int, str, dict[str, float], int | None]] = []  # step, split, results, epoch
        self._time = self._eval_time = 0.0
        self._loss_name: str | None = None
        self._loss = 0.0
        self._gone: set[str] = set()  # names of the current step that were passed on
        self._last_evals: dict[str, dict[str, float]] = {}  # by split: the results
        self._bare: set[str] = set()  # splits of which a bar has shown nothing since their last evaluation
        self._gone_evals: dict[tuple[int, str], set[str]] = {}

    @property
    def waiting(self) -> bool:
        """Whether a step or an evaluation is being collected."""
        return bool(self._train or self._evals)

    def add(self, row: Row, time: float = 0.0) -> list[RunRecord]:
        """Records that this row completes. `time`: of a row that names none."""
        if row.empty or len(row.train) > MOST_METRICS:
            self._announced(row)
            return []
        if row.time is not None:
            time = row.time
        records: list[RunRecord] = []
        step: int | None = None
        if row.train:
            before = self.counter.step
            step, restart = self.counter.place(row.at, "loss" in row.train or "lr" in row.train)
            if restart is not None:
                records += self.flush()
                records.append(self._restarted(restart, time))
            if step is not None and self._another(row, step):
                self.counter.count_rows()
                step, _ = self.counter.place(row.at)
            if step is not None:
                if step != self._step or (restart is None and step > before):
                    records += self.flush()
                    self._step, self._gone, self._loss_name = step, set(), None
                    self._gone_evals.clear()
                self._collect(row, time)
            elif row.evals:
                self._beside(row)
        elif row.evals:
            self._announced(row)
        if row.evals:
            where = step if step is not None else self.counter.standing(row.at)
            if self._train and self._step is not None and where > self._step:
                records += self.flush()
            for split, values in row.evals.items():
                self._evaluation(where, split, values, time, row.bar)
        if row.bar:
            self._bare |= set(self._last_evals) - set(row.evals)
        return records

    def _announced(self, row: Row) -> None:
        """Take a line with counters only."""
        if row.at.epoch is not None or row.at.epochs:
            self.counter.announce(row.at.epoch, row.at.epochs)
        if row.at.steps and row.at.step is not None and not (row.at.local and self.counter.epoch is not None):
            self.counter.total = row.at.steps

    def _another(self, row: Row, step: int) -> bool:
        """The same epoch and the same loss, with another value: a record of the epoch's middle, not one twice."""
        if step != self._step or self.counter.unit != "epoch" or row.loss_name is None:
            return False
        return row.loss_name == self._loss_name and row.train.get("loss") != self._loss

    def _collect(self, row: Row, time: float) -> None:
        new = {name: value for name, value in row.train.items() if name not in self._train and name not in self._gone}
        if not new:
            return  # the same once more: every process of a distributed run prints it
        if self._gone:
            self.late = True
            return
        if not self._train:
            self._time = time
        self._train |= new
        if "loss" in new:
            self._loss_name, self._loss = row.loss_name, new["loss"]
        self._rates = self._rates or row.rates

    def _beside(self, row: Row) -> None:
        """An epoch's mean beside its evaluation, where steps were logged: kept with the evaluation."""
        values = next(iter(row.evals.values()))
        for name, value in row.train.items():
            values.setdefault(name if name == "lr" else f"train_{name}", value)

    def _evaluation(self, step: int, split: str, values: dict[str, float], time: float, bar: bool) -> None:
        if not values:
            return
        shown = bar and split not in self._bare
        if shown and split in self._last_evals and values.items() <= self._last_evals[split].items():
            return  # a bar shows the newest evaluation at each of the steps that follow
        gone = self._gone_evals.get((step, split))
        if gone is not None:
            self.late = self.late or bool(set(values) - gone)
            return
        for at, of, held, _ in self._evals:
            if (at, of) == (step, split):
                for name, value in values.items():
                    held.setdefault(name, value)
                return
        self._eval_time = time
        self._evals.append((step, split, dict(values), self.counter.epoch))
        self._bare.discard(split)

    def flush(self) -> list[RunRecord]:
        """Return the step that is being collected, if any, then its evaluations."""
        records: list[RunRecord] = []
        if self._train and self._step is not None:
            values, self._train = self._train, {}
            self._gone |= set(values)
            self._lengths()
            records.append(self._record(self._step, values))
            self._rates = []
        for step, split, values, epoch in self._evals:
            self._gone_evals[(step, split)] = set(values)
            self._last_evals[split] = dict(values)
            records.append(self._eval(step, split, values, epoch))
        self._evals = []
        begin = self._begin(self._time or self._eval_time) if records else []
        for record in records:
            if isinstance(record, Step):
                self._passed = record.step
            elif isinstance(record, Eval):
                self._evaluated = max(self._evaluated, record.step)
        return begin + records

    def _record(self, step: int, values: dict[str, float]) -> Step:
        epoch = batch = None
        if self.steps_per_epoch:
            epoch, batch = divmod(step - 1, self.steps_per_epoch)
            batch += 1
        own = {name: finite(values.pop(name)) for name in OWN if name in values}
        more: dict[str, Any] = {}
        if self._rates:
            more["lrs"] = [finite(rate) for rate in self._rates]
        if values:
            more["metrics"] = {name: finite(value) for name, value in values.items()}
        return Step(
            time=self._time,
            step=step,
            epoch=epoch,
            batch=batch,
            lr=own.get("lr"),
            loss=own.get("loss", msgspec.UNSET),
            grad_norm=own.get("grad_norm"),
            samples_per_s=own.get("samples_per_s"),
            **more,
        )

    def _eval(self, step: int, split: str, values: dict[str, float], epoch: int | None) -> Eval:
        known: dict[str, Any] = {}
        metrics: dict[str, Number] = {}
        for name, value in values.items():
            own = "loss" if name == "loss" else FIELDS.get("".join(words_of(name)))
            if own is not None and own not in known:
                known[own] = finite(value)
            else:
                metrics[name] = finite(value)
        if metrics:
            known["metrics"] = metrics
        return Eval(time=self._eval_time, step=step, epoch=epoch, split=split, **known)

    def _restarted(self, restart: Restart, time: float) -> Run:
        self._attempt += 1
        self._step, self._gone = None, set()
        self._gone_evals.clear()
        self._passed = self._evaluated = restart.done
        self.notes = [restart.words]
        self._lengths()
        return self._run(time)

    def _lengths(self) -> None:
        counter = self.counter
        self.steps_per_epoch = counter.per_epoch or self.steps_per_epoch
        if self.stated_total or counter.total:
            self.total_steps = self.stated_total or counter.total
        elif counter.epochs and counter.unit == "epoch":
            self.total_steps = counter.epochs
        elif counter.epochs and self.steps_per_epoch:
            self.total_steps = counter.epochs * self.steps_per_epoch

    def _begin(self, time: float) -> list[RunRecord]:
        """A `run` record first, and another one when the log has revealed more about its length."""
        self._lengths()
        known = (self.total_steps, self.steps_per_epoch, self.counter.epochs)
        if known == self._written or (self._written is not None and self._evaluated > self._passed):
            return []  # an evaluation beyond the last step would be lost with an attempt that begins before it
        return [self._run(time)]

    def _run(self, time: float) -> Run:
        self._written = (self.total_steps, self.steps_per_epoch, self.counter.epochs)
        return Run(
            time=time,
            run_id=self.run_id,
            name=self.run_id,
            attempt=self._attempt,
            step=self._passed,
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.counter.epochs,
            notes=list(self.notes),
            lr_precision=self.lr_precision,
        )
