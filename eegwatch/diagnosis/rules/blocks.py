"""Cuts a stream of step columns of any size into blocks of a fixed number of records."""

from __future__ import annotations

from collections.abc import Iterator

from eegwatch.run.history import StepBlock


class Blocks:
    """The records that do not fill a block yet, and the blocks that new ones complete."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rest: StepBlock | None = None

    def feed(self, block: StepBlock) -> Iterator[tuple[StepBlock, StepBlock | None]]:
        """(part, the block that it completes): parts never cross a block boundary."""
        begin = 0
        while begin < len(block):
            waiting = len(self._rest) if self._rest is not None else 0
            part = block[slice(begin, begin + self.size - waiting)]
            begin += len(part)
            joined = StepBlock.joined(self._rest, part) if self._rest is not None and waiting else part
            whole = len(joined) == self.size
            self._rest = None if whole else joined
            yield part, joined if whole else None
