"""What watching costs, as it is written into the log: with the looks, and at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eegwatch.watching.cadence import FIRST

if TYPE_CHECKING:
    from eegwatch.watching.optimizer_listener import OptimizerListener

EVERY_S = 10.0  # between two records


class Cost:
    """The account of one watcher. `around_s`: what evaluations, checkpoints and sums of replicas have cost."""

    def __init__(self) -> None:
        self.around_s = 0.0
        self._written = -EVERY_S

    def due(self, listeners: Sequence[OptimizerListener]) -> bool:
        """Is it time to write a record?"""
        now = time.monotonic()
        if now < self._written + EVERY_S or all(listener.taken <= FIRST for listener in listeners):
            return False
        self._written = now
        return True

    def values(self, listeners: Sequence[OptimizerListener]) -> dict[str, Any]:
        """{"looks", "steps", "spent_s", "interval"}, and since the first steps {"share" of their time, "per_1000"}.

        "per_1000": looks in so many steps. Times are the thread's on CPUs, the wall's where a GPU takes part.
        """
        cadences = [listener.cadence for listener in listeners]
        values: dict[str, Any] = {
            "looks": sum(one.looks for one in cadences),
            "steps": sum(one.taken for one in cadences),
            "spent_s": sum(one.spent_s + one.taken * one.always_s for one in cadences) + self.around_s,
            "interval": max(one.interval for one in cadences),
        }
        since = [one.since_first() for one in cadences]
        took = max((steps * one.step_s for (steps, _, _), one in zip(since, cadences)), default=0.0)
        if took:
            values["share"] = sum(spent for _, _, spent in since) / took
            values["per_1000"] = 1000 * sum(looks for _, looks, _ in since) / max(steps for steps, _, _ in since)
        return {name: float(f"{one:.4g}") if isinstance(one, float) else one for name, one in values.items()}
