"""Names and values of any format as a row: counters, training values, evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from eegwatch.formats.counters import Counters
from eegwatch.formats.names import AVERAGE, BATCH, COMPONENT, EPOCH_MEAN, TRAIN, Role, meaning, role
from eegwatch.formats.numerals import clock_of, whole

MOST_EPOCHS = 100_000
__all__ = ["Field", "Row", "RowMaker", "meaning"]


@dataclass
class Row:
    """One row: counters and values. `rates`: of the parameter groups, if the row distinguishes them."""

    at: Counters = field(default_factory=Counters)
    train: dict[str, float] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    evals: dict[str, dict[str, float]] = field(default_factory=dict)
    time: float | None = None
    loss_name: str | None = None  # under which name the loss stood
    lone: bool = False  # the loss is the one component that was found
    settings: int = 0  # how many names of a configuration stand among the values
    bar: bool = False  # a progress bar, which shows the newest evaluation once more at each later step

    @property
    def empty(self) -> bool:
        return not (self.train or self.evals)


Field = tuple[str, float, int | None]  # name, value, of how many (`3/200`)


class RowMaker:
    """Names and values -> a Row. It remembers which name gave the loss: a column of means does not replace it."""

    def __init__(self, rename: Mapping[str, Role] | None = None, split: str | None = None) -> None:
        """`rename`: roles of names that a kind of log uses in its own way. `split`: of values whose name says none."""
        self.rename = dict(rename or {})
        self.split = split
        self.sum_components = False  # of losses without a total, their sum is the loss
        self._best_loss: dict[str, int] = {}
        self._lone: dict[str, str] = {}

    def role(self, name: str) -> Role:
        return self.rename.get(name) or role(name)

    def row(
        self, fields: Iterable[Field], split: str | None = None, lists: Mapping[str, list[float]] | None = None
    ) -> Row:
        """`split`: of values whose name says none, on this row. `lists`: rates of the parameter groups."""
        return self.build(((self.role(name), value, of) for name, value, of in fields), split, lists)

    def build(
        self,
        values: Iterable[tuple[Role, float, int | None]],
        split: str | None = None,
        lists: Mapping[str, list[float]] | None = None,
    ) -> Row:
        """As `row`, of values whose roles are known."""
        building = _Building(split or self.split or TRAIN)
        for what, value, of in values:
            building.take(what, value, of)
        building.settle_counters()
        for where, named in building.losses.items():
            self._losses(where, named, building.row)
        rates = building.rates
        if len(rates) == 1 and not rates[0][0] and not lists:
            building.row.train["lr"] = rates[0][3]
        elif rates or lists:
            self._rates(rates, lists or {}, building.row)
        return building.row

    def _losses(self, where: str, named: list[tuple[int, str, float]], row: Row) -> None:
        """One of a split's losses is the loss, the others are metrics under their own names."""
        values = row.train if where == TRAIN else row.evals.setdefault(where, {})
        rank, name, _ = min(named, key=lambda one: one[0])
        components = [name for rank, name, _ in named if rank >= COMPONENT]
        if rank >= COMPONENT and self.sum_components and len(components) > 1:
            values.setdefault("loss", sum(value for *_, value in named))
            chosen = None
        elif rank >= COMPONENT:
            # one alone stands for the loss; of several without a total, none does
            lone = self._lone.get(where)
            if lone is None and len(components) == 1 and where not in self._best_loss:
                lone = self._lone[where] = components[0]
            chosen = lone if lone in components and where not in self._best_loss else None
        else:
            # the mean of an epoch is the loss only of a log that holds no other
            best = self._best_loss[where] = min(rank, self._best_loss.get(where, rank))
            mean = rank >= AVERAGE and best == BATCH  # of the batches, each of which was logged
            chosen = name if (rank < EPOCH_MEAN and not mean) or best >= EPOCH_MEAN else None
        if where == TRAIN:
            row.loss_name, row.lone = chosen, rank >= COMPONENT and chosen is not None
        for _, name, value in named:
            key = "loss" if name == chosen else name
            if key == "loss" and name != chosen:
                key = "loss_mean"
            values.setdefault(key, value)

    def _rates(
        self, rates: list[tuple[int, int | None, str, float]], lists: Mapping[str, list[float]], row: Row
    ) -> None:
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


class _Building:
    """A row while its values are taken; losses and rates wait until all names are known."""

    __slots__ = ("_counts", "_split", "_step_rank", "_total", "losses", "rates", "row")

    def __init__(self, split: str) -> None:
        """`split`: of values whose name says none."""
        self.row = Row()
        self.losses: dict[str, list[tuple[int, str, float]]] = {}  # split -> (rank, name, value)
        self.rates: list[tuple[int, int | None, str, float]] = []  # (rank, parameter group, name, value)
        self._split = split
        self._step_rank = 99  # of the name that gave the step: a lower one is a better name
        self._total: int | None = None
        self._counts: list[tuple[float, int | None]] = []

    def take(self, what: Role, value: float, of: int | None) -> None:
        kind = what.kind
        if kind in ("metric", "grad_norm", "samples_per_s", "loss"):
            self._measured(what, value)
        elif kind == "lr":
            self.rates.append((what.rank, what.group, what.name, value))
        elif kind == "time":
            if (clock := clock_of(value)) is not None:
                self.row.time = clock
            else:  # a duration
                self._values(what.split or self._split).setdefault(what.name, value)
        else:
            self._counted(what, value, of)

    def _measured(self, what: Role, value: float) -> None:
        where = what.split or self._split
        if what.setting:
            self.row.settings += 1
        if what.kind == "loss":
            self.losses.setdefault(where, []).append((what.rank, what.name, value))
        else:
            named_by_kind = where == TRAIN and what.kind != "metric"
            self._values(where).setdefault(what.kind if named_by_kind else what.name, value)

    def _values(self, where: str) -> dict[str, float]:
        return self.row.train if where == TRAIN else self.row.evals.setdefault(where, {})

    def _counted(self, what: Role, value: float, of: int | None) -> None:
        at, kind = self.row.at, what.kind
        if kind == "step":
            self._counts.append((value, of))
            if what.rank < self._step_rank:
                at.step, at.steps, self._step_rank = value, of, what.rank
                at.local = what.rank in (1, 2)
        elif kind == "steps":
            self._total = whole(value) or self._total
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

    def settle_counters(self) -> None:
        """The epoch of a row with two counters, and the total that a name of its own gave."""
        at = self.row.at
        if at.steps and at.epoch is None:
            # `iteration: 74 step: 649/1687`: the other counter is the epoch's
            (first, of), inner = self._counts[0], at.step
            at.epoch = first if of is None and first != inner and first <= MOST_EPOCHS else None
        at.steps = at.steps or self._total
