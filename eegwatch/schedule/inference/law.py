"""A law found in a log: a schedule, the step at which it begins, and what of it the records leave open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegwatch.schedule import Schedule, as_dict

ENDLESS = ("exponential", "inverse_sqrt", "cosine_restarts", "cyclic")  # families whose rates show no length
UNSAID = {"warmup_mode": "reset", "warmup_type": "linear", "past_end": "hold", "cycles": 0.5, "restarts": 0,
          "cycle_decay": 1.0, "warmup_steps": 0, "T_mult": 1}  # fmt: skip


@dataclass(frozen=True)
class Law:
    """`schedule` at position (n - begin) // steps_per_epoch is the rate of step n.

    `ends`: least and most total_steps that the records allow; None where one only. `others`: laws, in words, that
    agree with the records so far and part from this one later. `skips`: steps at which the scheduler was not stepped.
    """

    schedule: Schedule
    begin: int
    steps_per_epoch: int = 1
    ends: tuple[int, int] | None = None
    others: tuple[str, ...] = ()
    skips: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return str(self.schedule.__struct_config__.tag)

    def position(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Scheduler position of each step."""
        n = np.asarray(steps, np.float64)
        p = n - self.begin
        if self.skips:
            p = p - np.searchsorted(np.asarray(self.skips, np.float64), n, side="right")
        return np.floor_divide(p, self.steps_per_epoch) if self.steps_per_epoch > 1 else p

    def rate(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The rate that each step has by this law, float64, shaped as `steps`."""
        return self.schedule.rate(self.position(steps))

    @property
    def total_steps(self) -> int | None:
        """The length that the rates imply, in steps of the run; None where they imply none, or several."""
        if self.name in ENDLESS or (self.ends is not None and self.ends[0] != self.ends[1]):
            return None
        return self.schedule.total_steps * self.steps_per_epoch

    @property
    def last_step(self) -> float:
        """The step from which on the law promises nothing (inf where it has no end)."""
        if self.name in ENDLESS:
            return np.inf
        length = self.ends[0] if self.ends else self.schedule.total_steps
        return float(self.begin + length * self.steps_per_epoch)

    def skipping(self, step: int) -> Law:
        """The law with one more skipped step, at `step` (the same may be named several times)."""
        return replace(self, skips=tuple(sorted((*self.skips, step))))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the schedule's own keys, `total_steps` (one, [least, most] or null), and `source`."""
        given = {k: v for k, v in as_dict(self.schedule).items() if v is not None and UNSAID.get(k) != v}
        if not given.get("warmup_steps"):
            given.pop("initial_lr", None)
        if self.steps_per_epoch > 1:
            given |= {"unit": "epoch", "steps_per_epoch": self.steps_per_epoch}
        total: int | list[int] | None = given["total_steps"]
        if self.name in ENDLESS:
            total = None
        elif self.ends is not None and self.ends[0] != self.ends[1]:
            total = list(self.ends)
        return given | {"total_steps": total, "begins_at_step": self.begin, "source": "found"}
