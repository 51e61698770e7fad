"""The global step of a row: its own counter, epoch and batch, the epoch alone, or one more than before.

A counter that falls is an epoch whose counter began again, a resume from an earlier step, or a new run in the same
file. Which it is, is decided by what the log says of its epochs:

    the epoch rose, or the counter had reached the length of an epoch      an epoch: the counts of the former are added
    it fell to where the run began                                         a new run: the earlier one is set aside
    it fell to anywhere else                                               a resume: what lies above it is set aside
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from eegwatch.formats.numerals import whole

MOST_RESTARTS = (
    1000  # runs and resumes of one file; beyond, the counter is disorder (two writers), and rows are left out
)
Unit = Literal["step", "batch", "epoch", "row"]
FINER: dict[Unit | None, int] = {None: 0, "row": 1, "epoch": 2, "batch": 3, "step": 3}


class Restart(NamedTuple):
    """A counter that fell: what it means, and how many steps were done when it began again."""

    kind: Literal["new run", "resume"]
    done: int
    words: str


@dataclass
class Counters:
    """The counters of a row."""

    step: float | None = None
    steps: int | None = None  # how many in all, where the row says so
    epoch: float | None = None
    epochs: int | None = None
    batch: float | None = None
    batches: int | None = None
    local: bool = False  # `step` may be counted within an epoch (`epoch: 3, iter: 10/47`)


class Counter:
    """Places rows on one rising line of steps, counted from 1."""

    def __init__(self, zero_based: bool | None = None, counts_rows: bool = True) -> None:
        """`zero_based`: whether the log's steps count from 0 (Lightning's do); None: as its first row says."""
        self.given_zero = zero_based
        self.counts_rows = counts_rows
        self.unit: Unit | None = None
        self.step = 0  # of the last row that counted
        self.total: int | None = None
        self.per_epoch: int | None = None
        self.epochs: int | None = None
        self.restarts = 0
        self.left_out = 0
        self._rows_in_epochs = self._solid = self._weak = False
        self._epoch_zero: int | None = None  # the smallest epoch said: 0 or 1 is where its numbers begin
        self._begin()

    def _begin(self) -> None:
        self._shift = 1 if self.given_zero else 0
        self._base = 0
        self._first: int | None = None
        self._last: int | None = None
        self._interval = 1
        self._epoch: int | None = None  # of the last row that counted
        self._announced: int | None = None
        self._first_epoch: int | None = None

    @property
    def epochs_from_zero(self) -> bool:
        """Whether the epochs are numbered from 0; False until a record shows it."""
        return self._epoch_zero == 0

    def count_epochs_from_zero(self) -> None:
        """They are, as the earlier output of this run has shown: a resume begins in the middle."""
        self._epoch_zero = 0

    @property
    def epoch(self) -> int | None:
        """The epoch that the log is in, from 0."""
        number = self._announced if self._announced is not None else self._epoch
        return None if number is None else max(number - (self._epoch_zero or 0), 0)

    def announce(self, epoch: float | None, epochs: int | None) -> None:
        """Take an announcement "epoch 17/50", on a separate line or in a row."""
        number = whole(epoch, 1 << 31)
        if number is not None:
            self._announced = number
            if self._epoch_zero is None or self._last is None:
                self._epoch_zero = min(number, 1 if self._epoch_zero is None else self._epoch_zero)
        if epochs and 0 < epochs < 1 << 31:
            self.epochs = epochs

    def standing(self, at: Counters) -> int:
        """The step of a row that is not a training record (an evaluation): nothing is moved."""
        if self.unit in ("batch", "epoch", "row", None):
            if self.unit in ("epoch", None) and at.step is None and at.batch is None and at.epoch is not None:
                number = whole(at.epoch, 1 << 31)
                if number is not None:
                    self.announce(at.epoch, at.epochs)
                    zero = self._epoch_zero == 0
                    return max(self._base + number + zero, 0) if number + zero >= (self._last or 0) else self.step
            return self.step if self.unit is not None or at.step is None else whole(at.step) or 0
        number = whole(at.step)
        if number is None or self._base or (self._last is not None and number < self._last):
            return self.step
        return number + self._shift

    def place(self, at: Counters, solid: bool = True) -> tuple[int | None, Restart | None]:
        """(the step of a training row, None where the row is a summary; what the counter did if it fell).

        `solid`: the row holds a loss or a rate; what the log counts in is settled by the first such row.
        """
        if at.epoch is not None or at.epochs:
            self.announce(at.epoch, at.epochs)
        unit, count = self._unit(at)
        if unit is None and solid and not self._solid:
            self.unit = None
            unit, count = self._unit(at)
        self._solid = self._solid or (solid and unit is not None)
        self._weak = self._solid and not solid  # a metric alone does not begin a run anew
        if unit is None:
            return None, None
        if unit != self.unit:
            self._turn(unit)
        if at.batches and unit == "batch" and (count or 0) <= at.batches:
            self.per_epoch = at.batches
        if unit == "row" and self._weak:
            return None, None  # neither a loss nor a rate: no step, where each row is one
        if unit == "row":
            self.step += 1
            return self.step, None
        assert count is not None
        if unit == "epoch":
            return self._place_epoch(count)
        return self._place_step(count, at)

    def count_rows(self) -> None:
        """Several rows an epoch and no counter among them: from now on each is a step."""
        self._rows_in_epochs, self.unit = True, "row"

    def _unit(self, at: Counters) -> tuple[Unit | None, int | None]:
        step, batch, epoch = whole(at.step), whole(at.batch, 1 << 40), whole(at.epoch, 1 << 31)
        if self.unit == "batch" and batch is not None:
            return "batch", batch
        if step is not None and not (at.local and at.steps and (self.epochs or at.epochs)):
            if self.unit == "batch" and step <= self.step:
                return None, None  # a summary under another counter
            if at.steps:
                if at.local and self._announced is not None:
                    at.batches = at.batches or at.steps
                else:
                    self.total = at.steps
            return "step", step
        if step is not None:
            at.batches = at.batches or at.steps
            return "batch", step
        if batch is not None:
            if self.unit == "step":
                return None, None
            return "batch", batch
        if self.unit in ("step", "batch"):
            return None, None  # the mean of an epoch, say: no step
        if epoch is None and self._announced is not None and at.epoch is None:
            epoch = self._announced
        if epoch is not None and (self.unit != "row" or (at.epoch is not None and not self._rows_in_epochs)):
            return "epoch", epoch
        if at.epoch is not None and self.unit == "epoch":
            return None, None
        return ("row", None) if self.counts_rows or self.unit == "row" else (None, None)

    def _turn(self, unit: Unit) -> None:
        """From now on it is counted in another unit: an epoch's number was all that was known before, say."""
        if self.unit is not None:
            self._first = self._last = None
            self._epoch = None
        self.unit = unit

    def _place_epoch(self, count: int) -> tuple[int | None, Restart | None]:
        if self._last is None:
            self._first = count
            self._shift = 1 if self._epoch_zero == 0 else 0
            self._base = self.step if count + self._shift <= self.step else 0
        elif count < self._last:
            return self._restart(count, f"epoch {count:,} follows epoch {self._last:,}")
        self._last = count
        self.step = self._base + count + self._shift
        return self.step, None

    def _place_step(self, count: int, at: Counters) -> tuple[int | None, Restart | None]:
        epoch = self._announced
        first = self._last is None
        if self.unit == "step" and at.local and at.steps and epoch is not None and self._goes_on(count, epoch):
            self.total = at.steps
        if first:
            self._first, self._first_epoch = count, epoch
            if self.given_zero is None:
                self._shift = 1 if count == 0 else 0
            if self.unit == "batch":
                epochs_done = max((epoch or 0) - (self._epoch_zero or 0), 0)
                self._base = max(epochs_done * (at.batches or 0), self.step if self.step > count + self._shift else 0)
        elif self.unit == "batch" and epoch is not None and self._epoch is not None and epoch != self._epoch:
            if epoch < self._epoch:
                return self._restart(count, f"epoch {epoch:,} follows epoch {self._epoch:,}", at)
            self._base += (epoch - self._epoch) * self._length(at)
        elif count < (self._last or 0) or self._logged_once_an_epoch(count, epoch, at):
            if self._epoch_ended(count, epoch, at):
                self._base += self._length(at)
            else:
                return self._restart(count, f"step {count:,} follows step {self._last:,}", at)
        elif not first and count > (self._last or 0):
            self._interval = count - (self._last or 0)
        self._last, self._epoch = count, epoch
        step = self._base + count + self._shift
        if step < self.step:
            self.left_out += 1
            return None, None
        self.step = step
        return step, None

    def _goes_on(self, count: int, epoch: int) -> bool:
        """Whether an epoch began without a fall of the counter: then the counter counts the whole run."""
        before, last = self._epoch, self._last
        return before is not None and last is not None and epoch > before and 0 < count - last == self._interval

    def _logged_once_an_epoch(self, count: int, epoch: int | None, at: Counters) -> bool:
        """`epoch:3 iter:0/18` on every line: the counter stands still, and the epoch goes on."""
        before = self._epoch
        return bool(at.local and at.steps) and count == self._last and None not in (epoch, before) and epoch != before

    def _epoch_ended(self, count: int, epoch: int | None, at: Counters) -> bool:
        """The counter fell: because an epoch ended?"""
        if epoch is not None and self._epoch is not None:
            if epoch != self._epoch:
                return epoch > self._epoch
            if self.unit == "step":
                return False
        if self.unit == "step":
            return False
        length = at.batches or self.per_epoch
        if epoch is not None and self._epoch is not None:
            return False  # the same epoch once more: it was resumed
        return not length or (self._last or 0) + max(self._interval, 1) >= length - 1

    def _length(self, at: Counters) -> int:
        """Number of steps of the epoch that ended: as announced, else from its last counter and the interval."""
        seen = (self._last or 0) + self._shift
        batches = self.per_epoch or at.batches
        if self.unit == "step" and at.batches and at.batches >= seen:
            self.per_epoch = at.batches
            return at.batches
        if batches and batches >= seen:
            return batches
        # longer by less than the interval of the log: a counter from 0 ends one interval before the epoch does
        return seen + self._interval - 1 if self._shift else seen

    def _restart(self, count: int, words: str, at: Counters | None = None) -> tuple[int | None, Restart | None]:
        if self._weak:
            return None, None
        if self.restarts >= MOST_RESTARTS:
            self.left_out += 1
            return None, None
        self.restarts += 1
        epoch = self._announced
        whole_run = count <= (self._first or 0) + self._interval - 1 and (
            self.unit != "batch" or epoch is None or self._first_epoch is None or epoch <= self._first_epoch
        )
        if self.unit == "step" and self._base and epoch is not None and self._epoch is not None:
            whole_run = whole_run and epoch <= (self._first_epoch or 0)
        if whole_run:
            last_step, zero, announced = self.step, self._epoch_zero, self._announced
            self._begin()
            self._epoch_zero = min(announced, 1) if announced is not None else zero
            self._announced = announced
            self.step = 0
            step, _ = self._place_epoch(count) if self.unit == "epoch" else self._place_step(count, at or Counters())
            return step, Restart("new run", 0, f"{words}: a new run begins in the same file after step {last_step:,}")
        if self.unit == "batch":
            epochs_done = max((epoch or 0) - (self._epoch_zero or 0), 0)
            length = self.per_epoch or 0
            self._base = epochs_done * length if length and epoch is not None else min(self._base, self.step)
        self._last, self._epoch = count, epoch
        step = self._base + count + self._shift
        self.step = step
        return step, Restart("resume", max(step - 1, 0), f"{words}: the run was resumed")
