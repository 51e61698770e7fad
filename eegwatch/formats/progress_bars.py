"""Detects states of a progress bar that show old values: a bar updates its count and its values at different times.

tqdm draws a bar when its count moves and once more when the script calls `set_postfix`: two states follow each other,

    2/60 [..., loss=0.8869]     the count moved; the values are those of step 2, which were shown before
    2/60 [..., loss=0.9934]     the values of step 3, which is not finished yet

Read as they come, the first state would give step 3 the values of step 2. A script that renews the values every ten
steps, and a bar that is drawn once more at its end, repeat old values in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MOST_BARS = 64  # bars of different lengths; more of them are not bars of one training
RICH = ("━", "╸", "╺")  # rich moves the count and the values together: at 0 no step was taken
# A value that really stands still (a rate that is stuck, a loss that is not a number) has to be read in the end.
LEAST_PATIENCE = 50  # counts for which values that do not change are taken for old ones


@dataclass
class _Bar:
    count: float
    values: dict[str, float]
    unchanged: float = 0.0  # counts since the values changed
    longest: float = 0.0  # the longest pause between two changes so far


class Bars:
    """The last states of the progress bars of a log, by their lengths."""

    def __init__(self) -> None:
        self._bars: dict[int | None, _Bar] = {}

    def old(self, line: str, count: float, of: int | None, values: Mapping[str, float]) -> bool:
        """Whether this state of a bar, `count` of `of`, shows the values of the previous state."""
        if not values:
            return False
        if count == 0 and any(mark in line for mark in RICH):
            return True
        bar = self._bars.get(of)
        if bar is None or values != bar.values:
            longest = 0.0 if bar is None else max(bar.longest, bar.unchanged)
            if bar is None and len(self._bars) >= MOST_BARS:
                self._bars.clear()
            self._bars[of] = _Bar(count, dict(values), longest=longest)
            return False
        bar.unchanged += max(count - bar.count, 0.0)
        bar.count = count
        return bar.unchanged <= LEAST_PATIENCE + 2 * bar.longest
