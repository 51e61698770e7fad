"""What a rule of the watcher's records is: a name, a class, and a judgement of one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from eegwatch.run.records import Run, Watch

Values = dict[str, Any]


@dataclass(frozen=True)
class Violation:
    """An equality that does not hold: what is so in whole words, why, and the line to change.

    `fact`: of a rule that proves: this judgement is true, and may be meant, so it is a warning.
    """

    message: str
    remedy: str
    why: str = ""
    fact: bool = False


@dataclass
class Attempt:
    """What is known beside the record: the attempt, what was attached, and earlier records that are compared with."""

    run: Run | None = None
    attached: Values = field(default_factory=dict)
    states: dict[int, Values] = field(default_factory=dict)  # at checkpoints of earlier attempts and this one, by step
    orders: dict[tuple[int, int], Values] = field(default_factory=dict)  # the last epoch of each (loader, rank)
    # of earlier attempts too: (loader, rank) -> epochs that were read to their end, with the attempt's first step
    read: dict[tuple[int, int], list[tuple[int, Values]]] = field(default_factory=dict)
    # (loader, rank) -> (samples, epochs of so many in a row) that were read in the order of their indices
    sequences: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    done: dict[tuple[int, int], list[Values]] = field(default_factory=dict)  # of those, what lies before this attempt
    # (look, what is compared) -> rank or worker -> values
    ranks: dict[tuple[str, str], dict[int, Values]] = field(default_factory=dict)
    windows: tuple[int, float, float] = (1, 1.0, 1.0)  # the longest step so far: micro-batches, items, sum of weights
    unequal: bool = False  # have micro-batches had other numbers of items?
    # (loader, rank) -> step -> how far its epoch was drawn there; of earlier attempts too
    drawn: dict[tuple[int, int], dict[int, Values]] = field(default_factory=dict)
    splits: dict[tuple[int, str], Values] = field(default_factory=dict)  # (rank, name) -> the newest record of it
    trained: list[tuple[int, Values]] = field(default_factory=list)  # (attempt, training split) of earlier attempts
    begun: Values = field(default_factory=dict)  # the weights that the attempt began with, where a resume told of them
    took: dict[tuple[int, int], int] = field(default_factory=dict)  # (loader, rank) -> the most steps of an epoch
    apart: dict[str, int] = field(default_factory=dict)  # what ranks draw from -> the last attempt in which it differed
    # optimizer -> (factor of the loss, factor of its gradients) of the last step that told of them
    scaled: dict[int, tuple[float, float]] = field(default_factory=dict)
    in_a_row: dict[tuple[str, int], int] = field(default_factory=dict)  # (rule, optimizer) -> looks that showed it

    @property
    def declared(self) -> Values:
        """What the script declared to the watcher."""
        declared: Values = self.attached.get("declared", {})
        return declared


def steps_of_epoch(values: Values, per_epoch: int | None) -> int:
    """At most how many steps an epoch takes that reads `n` samples."""
    return per_epoch or -(-int(values["n"]) // int(values.get("batch") or 1))


def seen_in_a_row(attempt: Attempt, rule: str, record: Watch, shown: bool) -> int:
    """How many looks at this optimizer have shown something, this one included; 0 where this one does not."""
    key = rule, int(record.values.get("opt", 0))
    attempt.in_a_row[key] = attempt.in_a_row.get(key, 0) + 1 if shown else 0
    return attempt.in_a_row[key]


def in_consecutive_steps(attempt: Attempt, rule: str, record: Watch, shown: bool) -> int:
    """How many steps of this optimizer, one right after the other, have shown something, this one included."""
    of_last = f"{rule}: step", int(record.values.get("opt", 0))
    count = int(record.values.get("count", 0))
    if attempt.in_a_row.get(of_last, 0) != count - 1:
        attempt.in_a_row[rule, of_last[1]] = 0
    attempt.in_a_row[of_last] = count
    return seen_in_a_row(attempt, rule, record, shown)


Judgement = Violation | Literal[True] | None  # broken, holds, or cannot be told from this record
Judge = Callable[[Watch, Attempt], Judgement]


@dataclass(frozen=True)
class SilentRule:
    """`look`: which records it reads. `proved`: a broken equality (an error); else a fact (a warning)."""

    name: str
    look: str
    proved: bool
    judge: Judge


def unless(key: str) -> Callable[[Callable[[Watch, Any], Violation]], Judge]:
    """A judge made of what is said of a value that the watcher writes only where the equality is broken.

    Without the value the rule holds.
    """

    def judge_of(describe: Callable[[Watch, Any], Violation]) -> Judge:
        def judge(record: Watch, attempt: Attempt) -> Judgement:
            value = record.values.get(key)
            return True if value is None else describe(record, value)

        return judge

    return judge_of


def names(some: Values) -> str:
    """Names of a record in words: "a, b and 3 more"."""
    shown = [str(name) for name in some.get("names", [])]
    more = int(some.get("n", len(shown))) - len(shown)
    if not shown:
        return f"{more:,} tensors"
    if more > 0:
        return f"{', '.join(shown)} and {more:,} more"
    return ", ".join(shown[:-1]) + " and " + shown[-1] if len(shown) > 1 else shown[0]
