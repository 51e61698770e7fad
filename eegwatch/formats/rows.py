"""Rows of named numbers, in whatever format they came, as our records: steps, evaluations, and the run they belong to.

Values of one step that stand in several rows (loss and rate, as Lightning writes them) become one record. A step is
passed on when the next begins, or when the reader asks for all; a row that comes later for a step already passed on is
`late`: who follows the log then reads it anew and waits longer, so that the records do not depend on when it was read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from eegwatch.formats.counters import Counter, Counters, Restart
from eegwatch.formats.names import COMPONENT, FIELDS, TRAIN, VAL, Role, role, words_of
from eegwatch.formats.numerals import clock_of, whole
from eegwatch.run.records import Eval, Run, RunRecord, Step, finite

MOST_METRICS = 500  # of one record: a row with more columns is a table of something else


@dataclass
class Row:
    """One row: where it stands, and what it holds. `rates`: of the parameter groups, where the row tells them apart."""

    at: Counters = field(default_factory=Counters)
    train: dict[str, float] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    evals: dict[str, dict[str, float]] = field(default_factory=dict)
    time: float | None = None
    restart: bool = False  # the log itself says that a run begins here

    @property
    def empty(self) -> bool:
        return not (self.train or self.evals)


Field = tuple[str, float, int | None]  # name, value, of how many (`3/200`)


class RowMaker:
    """Names and values -> a Row. It remembers which name gave the loss, so that a column of means does not replace it."""

    def __init__(self, rename: Mapping[str, Role] | None = None, split: str | None = None) -> None:
        """`rename`: roles of names that a kind of log uses in its own way. `split`: of values whose name says none."""
        self.rename = dict(rename or {})
        self.split = split
        self._best_loss: dict[str, int] = {}
        self._lone: dict[str, str] = {}

    def role(self, name: str) -> Role:
        return self.rename.get(name) or role(name)

    def row(self, fields: Iterable[Field], split: str | None = None, lists: Mapping[str, list[float]] | None = None) -> Row:
        """`split`: of values whose name says none, on this row. `lists`: rates of the parameter groups."""
        return self.build(((self.role(name), value, of) for name, value, of in fields), split, lists)

    def build(
        self,
        values: Iterable[tuple[Role, float, int | None]],
        split: str | None = None,
        lists: Mapping[str, list[float]] | None = None,
    ) -> Row:
        row, at = Row(), Counters()
        row.at = at
        given = split or self.split
        losses: dict[str, list[tuple[int, str, float]]] = {}
        rates: list[tuple[int, int | None, str, float]] = []
        step_rank = 99
        for what, value, of in values:
            kind = what.kind
            if kind in ("metric", "grad_norm", "samples_per_s", "loss"):
                where = what.split or given or TRAIN
                if kind == "loss":
                    losses.setdefault(where, []).append((what.rank, what.name, value))
                elif where == TRAIN:
                    row.train.setdefault(what.name if kind == "metric" else kind, value)
                else:
                    row.evals.setdefault(where, {}).setdefault(what.name, value)
            elif kind == "lr":
                rates.append((what.rank, what.group, what.name, value))
            elif kind == "step":
                if what.rank < step_rank:
                    at.step, step_rank = value, what.rank
                    at.steps = of or at.steps
                    at.local = what.rank in (1, 2)
            elif kind == "steps":
                at.steps = whole(value) or at.steps
            elif kind == "epoch":
                if what.rank == 0 or at.epoch is None:
                    at.epoch = value
                at.epochs = of or at.epochs
            elif kind == "epochs":
                at.epochs = whole(value, 1 << 31) or at.epochs
            elif kind == "batch":
                at.batch, at.batches = value, of or at.batches
            elif kind == "batches":
                at.batches = whole(value, 1 << 40) or at.batches
            elif kind == "time" and (clock := clock_of(value)) is not None:
                row.time = clock
            elif kind == "time" and (given or TRAIN) == TRAIN:
                row.train.setdefault(what.name, value)
        for where, found in losses.items():
            self._losses(where, found, row)
        self._rates(rates, lists or {}, row)
        return row

    def _losses(self, where: str, found: list[tuple[int, str, float]], row: Row) -> None:
        """One of a split's losses is the loss, the others are metrics under their own names."""
        values = row.train if where == TRAIN else row.evals.setdefault(where, {})
        rank, name, _ = min(found, key=lambda one: one[0])
        components = [name for rank, name, _ in found if rank >= COMPONENT]
        if rank >= COMPONENT:
            # one alone stands for the loss; of several without a total, none does
            lone = self._lone.get(where)
            if lone is None and len(components) == 1 and where not in self._best_loss:
                lone = self._lone[where] = components[0]
            chosen = lone if lone in components and where not in self._best_loss else None
        else:
            best = self._best_loss.setdefault(where, rank)
            if rank < best:
                self._best_loss[where] = rank
            chosen = name if rank <= best else None
        for _, name, value in found:
            key = "loss" if name == chosen else name
            if key == "loss" and name != chosen:
                key = "loss_mean"
            values.setdefault(key, value)

    def _rates(self, rates: list[tuple[int, int | None, str, float]], lists: Mapping[str, list[float]], row: Row) -> None:
        groups: list[float] = next(iter(lists.values()), [])
        if not rates and not groups:
            return
        best = min((rank for rank, *_ in rates), default=0)
        if rates:
            # `lr/pg0`, `lr/pg1` …: the groups in their order; several names without numbers as they stand
            chosen = [one for one in rates if one[0] == best]
            numbered = sorted((one for one in chosen if one[1] is not None), key=lambda one: one[1] or 0)
            plain = [one for one in chosen if one[1] is None]
            if plain and numbered:
                numbered = [*plain[:1], *(one for one in numbered if one[1])]
            groups = groups or [value for *_, value in (numbered or (plain if best else plain[:1] or plain))]
            for rank, _, name, value in rates:
                if rank != best and name not in ("lr",):
                    row.train.setdefault(name, value)
        row.train["lr"] = groups[0]
        if len(groups) > 1 and any(rate != groups[0] for rate in groups):
            row.rates = groups[:256]


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
        self._begun_at = 0
        self._said: tuple[object, ...] | None = None
        self._step: int | None = None
        self._train: dict[str, float] = {}
        self._rates: list[float] = []
        self._evals: list[tuple[int, str, dict[str, float]]] = []
        self._time = self._eval_time = 0.0
        self._flushed: set[str] = set()  # what was passed on of the current step
        self._flushed_evals: dict[tuple[int, str], set[str]] = {}

    @property
    def waiting(self) -> bool:
        return bool(self._train or self._evals)

    def add(self, row: Row, time: float = 0.0) -> list[RunRecord]:
        """Records that this row completes."""
        if row.time is not None:
            time = row.time
        if row.empty:
            if row.at.epoch is not None or row.at.epochs:
                self.counter.announce(row.at.epoch, row.at.epochs)
            if row.at.steps and not row.at.local:
                self.counter.total = row.at.steps
            return []
        if len(row.train) > MOST_METRICS:
            return []
        records: list[RunRecord] = []
        train, before = dict(row.train), self.counter.step
        step, restart = self.counter.place(row.at) if train else (None, None)
        if step is None and train and row.evals:  # the mean of an epoch beside its evaluation
            first = next(iter(row.evals.values()))
            for name, value in train.items():
                first.setdefault(f"train_{name}" if name != "lr" else "lr", value)
        if restart is not None:
            records += self.flush() + [self._restarted(restart, time)]
        if train and step is not None:
            if step != self._step or (restart is None and step > before):
                records += self.flush()
                self._step, self._flushed = step, set()
                self._flushed_evals.clear()
            new = {name: value for name, value in train.items() if name not in self._train and name not in self._flushed}
            if new and self._flushed:
                self.late = True
            elif new:
                if not self._train:
                    self._time = time
                self._train |= new
                self._rates = self._rates or row.rates
        if row.evals:
            where = step if step is not None else self.counter.standing(row.at)
            if self._train and self._step is not None and where > self._step:
                records += self.flush()
            for split, values in row.evals.items():
                self._evaluation(where, split, values, time)
        return self._begin(time) + records if records else records

    def _evaluation(self, step: int, split: str, values: dict[str, float], time: float) -> None:
        if not values:
            return
        gone = self._flushed_evals.get((step, split))
        if gone is not None and not gone & set(values):
            self.late = True
            return
        for at, of, held in self._evals:
            if (at, of) == (step, split):
                if not set(held) & set(values):
                    held |= values
                return  # the same once more
        if gone is None:
            self._eval_time = time
            self._evals.append((step, split, dict(values)))

    def flush(self) -> list[RunRecord]:
        """What is being collected, if anything is: the step, then its evaluations."""
        records: list[RunRecord] = []
        if self._train and self._step is not None:
            values, self._train = self._train, {}
            self._flushed |= set(values)
            records.append(self._record(self._step, values))
            self._rates = []
        for step, split, values in self._evals:
            self._flushed_evals[(step, split)] = set(values)
            records.append(self._eval(step, split, values))
        self._evals = []
        return self._begin(self._time or self._eval_time) + records if records else records

    def _record(self, step: int, values: dict[str, float]) -> Step:
        per_epoch = self.steps_per_epoch
        epoch = batch = None
        if per_epoch:
            epoch, batch = divmod(step - 1, per_epoch)
            batch += 1
        loss = values.pop("loss", None)
        lr, norm, speed = values.pop("lr", None), values.pop("grad_norm", None), values.pop("samples_per_s", None)
        return Step(
            time=self._time,
            step=step,
            epoch=epoch,
            batch=batch,
            lr=finite(lr),
            loss=msgspec.UNSET if loss is None else finite(loss),
            grad_norm=finite(norm),
            samples_per_s=finite(speed),
            **_more(lrs=[finite(rate) for rate in self._rates], metrics={n: finite(v) for n, v in values.items()}),
        )

    def _eval(self, step: int, split: str, values: dict[str, float]) -> Eval:
        known: dict[str, object] = {}
        metrics: dict[str, object] = {}
        for name, value in values.items():
            own = "loss" if name == "loss" else FIELDS.get("".join(words_of(name)))
            if own is not None and own not in known:
                known[own] = finite(value)
            else:
                metrics[name] = finite(value)
        number = self.counter.epoch
        return Eval(time=self._eval_time, step=step, epoch=number, split=split, **known, **_more(metrics=metrics))  # type: ignore[arg-type]

    def _restarted(self, restart: Restart, time: float) -> Run:
        self._attempt += 1
        self._step, self._flushed = None, set()
        self._flushed_evals.clear()
        self._begun_at = restart.done
        self.notes = [restart.words]
        self._said = None
        return self._run(time, restart.done)

    def _begin(self, time: float) -> list[RunRecord]:
        """A `run` record first, and another where the log has said more of its length since."""
        counter = self.counter
        self.steps_per_epoch = counter.per_epoch or self.steps_per_epoch
        if self.stated_total or counter.total:
            self.total_steps = self.stated_total or counter.total
        elif counter.epochs and counter.unit == "epoch":
            self.total_steps = counter.epochs
        elif counter.epochs and self.steps_per_epoch:
            self.total_steps = counter.epochs * self.steps_per_epoch
        known = (self.total_steps, self.steps_per_epoch, counter.epochs)
        if known == self._said:
            return []
        return [self._run(time, self._begun_at if self._said is None else max(self._passed, self._begun_at))]

    @property
    def _passed(self) -> int:
        """The last step that was passed on."""
        return self._last_passed

    _last_passed = 0

    def _run(self, time: float, step: int) -> Run:
        self._said = (self.total_steps, self.steps_per_epoch, self.counter.epochs)
        return Run(
            time=time,
            run_id=self.run_id,
            name=self.run_id,
            attempt=self._attempt,
            step=step,
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.counter.epochs,
            notes=list(self.notes),
            **_more(lr_precision=self.lr_precision),
        )
