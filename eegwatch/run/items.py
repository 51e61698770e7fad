"""Records of a log as items for its readers: steps as blocks, in their valid order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from eegwatch.run.columns import block_of
from eegwatch.run.history import Item, StepBlock
from eegwatch.run.records import Eval, Run, RunRecord, ScheduleChange, Step, Watch

CLOCK_SLACK_S = 1.0  # a clock set back by less is not worth a word


class ItemReader:
    """Turns records into items, and keeps the steps of an attempt in order for any content of the log.

    A step that does not lie beyond the attempt's last one (two writers, a counter set back, a negative number) is left
    out and counted; `first_disorder` says where. Going back is legal only with a new attempt.
    """

    def __init__(self) -> None:
        self.disorder = 0
        self.first_disorder: str | None = None
        self.clock_back: str | None = None
        self.last = 0
        self.clock = -math.inf  # of the attempt's last step

    @classmethod
    def at(
        cls, disorder: int, first_disorder: str | None, clock_back: str | None, last: int, clock: float = -math.inf
    ) -> ItemReader:
        """One that has read so far."""
        reader = cls()
        reader.disorder, reader.first_disorder, reader.clock_back = disorder, first_disorder, clock_back
        reader.last, reader.clock = last, clock
        return reader

    def items(self, records: Iterable[RunRecord]) -> Iterator[Item]:
        return self.ordered(items(records))

    def ordered(self, items: Iterable[Item]) -> Iterator[Item]:
        """What `items` made of the records, in the order of the log, with the steps that count."""
        for item in items:
            if isinstance(item, Run):
                self.last, self.clock = item.step, -math.inf
            elif isinstance(item, StepBlock):
                item = self._ordered(item)
                if not len(item):
                    continue
            yield item

    def _ordered(self, block: StepBlock) -> StepBlock:
        if int(block.step[0]) <= self.last or not (block.step[1:] > block.step[:-1]).all():
            block = self._in_order(block)
            if not len(block):
                return block
        self.last = int(block.step[-1])
        passed = np.diff(block.time)
        first, clock = float(block.time[0]), self.clock
        self.clock = float(block.time[-1])
        if self.clock_back is None and (first - clock < -CLOCK_SLACK_S or (passed < -CLOCK_SLACK_S).any()):
            passed = np.concatenate([[first - clock], passed])
            back = int(np.flatnonzero(passed < -CLOCK_SLACK_S)[0])
            self.clock_back = f"the clock goes back by {-passed[back]:,.0f} s at step {block.step[back]:,}"
        return block

    def _in_order(self, block: StepBlock) -> StepBlock:
        """The steps of it that lie beyond all before."""
        before = np.maximum.accumulate(np.concatenate([[self.last], block.step[:-1]]))
        ordered = block.step > before
        if not ordered.all():
            first = int(np.argmin(ordered))
            self.disorder += int((~ordered).sum())
            self.first_disorder = self.first_disorder or f"step {block.step[first]:,} follows step {before[first]:,}"
            block = block[ordered]
        return block


def items(
    records: Iterable[Any], kind: type[Any] = Step, block_of: Callable[[list[Any]], StepBlock] = block_of
) -> Iterator[Item]:
    """Records regrouped for vectorised work: steps become one block, ahead of the records among them.

    But not past an evaluation, which is judged by the steps before it, nor past a new attempt or schedule. `kind`: of
    the step records, which `block_of` makes a block.
    """
    known: list[Any] = records if isinstance(records, list) else list(records)
    steps: list[Any] = []
    others: list[Item] = []

    def flush() -> Iterator[Item]:
        if steps:
            yield block_of(steps)
        yield from others

    begin = 0
    for at in [i for i, record in enumerate(known) if type(record) is not kind]:  # few
        steps += known[begin:at]
        begin, record = at + 1, known[at]
        if isinstance(record, Run | Eval | ScheduleChange | Watch):
            yield from flush()
            steps, others = [], []
            yield record
        else:
            others.append(record)
    steps = steps + known[begin:] if begin else known
    yield from flush()
