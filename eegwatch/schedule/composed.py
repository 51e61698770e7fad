"""Schedules made of schedules: in a row, multiplied, at another pace, averaged, or changed by hand."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from eegwatch.schedule import shapes
from eegwatch.schedule.base import Bands, Schedule, Warmed
from eegwatch.schedule.shapes import Rates

Then = Literal["anneal", "hold", "scale"]
LONGEST_EPOCH = 1_000_000  # positions of which a mean is taken in full; a longer epoch is sampled at as many


def _parsed(declared: dict[str, Any]) -> Schedule:
    from eegwatch.schedule.spec import parse  # spec.py knows every family, these too

    return parse(declared)


class Sequence(Schedule, frozen=True, kw_only=True, tag="sequence"):
    """torch `SequentialLR`: schedule i from milestone i - 1 on, its positions counted from there."""

    schedules: list[dict[str, Any]]
    milestones: list[int | float]

    @cached_property
    def parts(self) -> list[Schedule]:
        return [_parsed(declared) for declared in self.schedules]

    @cached_property
    def starts(self) -> Rates:
        return np.asarray([0.0, *self.milestones])

    def at(self, position: Rates) -> Rates:
        which = np.searchsorted(self.starts[1:], position, side="right")
        rate = np.full(np.shape(position), np.nan)
        for number in np.unique(which):
            part = self.parts[int(number)].rate(position - self.starts[int(number)])
            rate = np.where(which == number, part, rate)
        return rate

    def peak(self) -> float:
        return max(part.peak() for part in self.parts)

    def check(self) -> str | None:
        if not self.schedules or len(self.milestones) != len(self.schedules) - 1:
            return f"{len(self.schedules)} schedules need {max(len(self.schedules) - 1, 0)} milestones between them"
        if any(b <= a for a, b in zip(self.starts[:-1], self.starts[1:])):
            return "milestones must be above 0 and rise"
        return None

    def phases(self) -> Bands:
        ends = [*self.milestones, float(self.total_steps)]
        bands: Bands = []
        for number, (part, begin, end) in enumerate(zip(self.parts, self.starts, ends)):
            inner = [(name, begin + a, min(begin + b, end)) for name, a, b in part.phases() if begin + a < end]
            rises = not inner or (len(inner) == 1 and number == 0 and float(part.rate(0)) < float(part.rate(end - 1)))
            bands += [("warm-up" if number == 0 else "hold", float(begin), float(end))] if rises else inner
        return bands


class Product(Schedule, frozen=True, kw_only=True, tag="product"):
    """torch `ChainedScheduler` of schedulers that multiply the rate: `lr` times every factor (schedules of peak 1)."""

    lr: float
    factors: list[dict[str, Any]]

    @cached_property
    def parts(self) -> list[Schedule]:
        return [_parsed(declared) for declared in self.factors]

    def at(self, position: Rates) -> Rates:
        rate = np.full(np.shape(position), self.lr)
        for part in self.parts:
            rate = rate * part.rate(position)
        return rate

    def check(self) -> str | None:
        return None if self.factors else "factors must not be empty"


class Paced(Warmed, frozen=True, kw_only=True, tag="paced"):
    """`of`, moved `steps` of its positions at a time, once in `every` positions of this schedule.

    every = 1,000: `of` counts epochs of 1,000 steps (and the warm-up may still count steps, as YOLO's does);
    steps = 4: accelerate's prepared scheduler in four processes; every = 20: stepped at every 20th step. `within`: the
    count begins anew after so many positions (Lightning counts its `frequency` in each epoch).
    """

    of: dict[str, Any]
    every: float = 1
    steps: float = 1
    within: int | None = None
    positive: ClassVar[tuple[str, ...]] = ("every", "steps", "within")

    @cached_property
    def inner(self) -> Schedule:
        return _parsed(self.of)

    def top(self) -> float:
        return self.inner.peak()

    def curve(self, q: Rates, length: float) -> Rates:
        if self.within is None:
            return self.inner.rate(np.floor_divide(q, self.every) * self.steps)
        whole, rest = np.divmod(q, self.within)
        moves = whole * (self.within // self.every) + np.floor_divide(rest, self.every)
        return self.inner.rate(moves * self.steps)

    def phases(self) -> Bands:
        moves = 1 / self.every if self.within is None else max(self.within // self.every, 1) / self.within
        pace, total = 1 / (moves * self.steps), float(self.total_steps)
        bands: Bands = [
            (name, a * pace, min(b * pace, total)) for name, a, b in self.inner.phases() if a * pace < total
        ]
        W = float(self.warmup_steps)
        if W <= 0:
            return bands
        return [("warm-up", 0.0, W), *((name, max(a, W), b) for name, a, b in bands if b > W)]


class EpochMean(Schedule, frozen=True, kw_only=True, tag="epoch_mean"):
    """The mean over each epoch of `of`, which moves at every step: MAE's, DeiT's, LaBraM's `train_lr`.

    Positions count epochs; `of` counts steps, `steps_per_epoch` of them an epoch.
    """

    of: dict[str, Any]
    steps_per_epoch: int
    positive: ClassVar[tuple[str, ...]] = ("steps_per_epoch",)

    @cached_property
    def inner(self) -> Schedule:
        return _parsed(self.of)

    @cached_property
    def _known(self) -> dict[float, float]:
        return {}

    def at(self, position: Rates) -> Rates:
        epochs, back = np.unique(np.floor(position), return_inverse=True)
        means = np.array([self._mean(float(epoch)) for epoch in epochs])
        return np.asarray(means[back].reshape(np.shape(position)))

    def _mean(self, epoch: float) -> float:
        known = self._known
        if epoch not in known:
            if len(known) > LONGEST_EPOCH:
                known.clear()
            B = self.steps_per_epoch
            within = np.arange(B) if B <= LONGEST_EPOCH else np.linspace(0, B - 1, LONGEST_EPOCH).round()
            known[epoch] = float(np.mean(self.inner.rate(epoch * B + within)))
        return known[epoch]

    def peak(self) -> float:
        return self.inner.peak()

    def phases(self) -> Bands:
        B = self.steps_per_epoch
        return [(name, a / B, b / B) for name, a, b in self.inner.phases()]


class Manual(Schedule, frozen=True, kw_only=True, tag="manual"):
    """`base` until `from_step`; from there an LR that a person chose, and what then becomes of it."""

    from_step: int
    lr: float
    base: dict[str, Any]
    then: Then = "anneal"
    final_lr: float | None = None
    steps_per_epoch: int | None = None  # set where the base counts epochs: a manual schedule itself counts steps
    positive: ClassVar[tuple[str, ...]] = ("lr", "steps_per_epoch")

    @cached_property
    def base_schedule(self) -> Schedule:
        return _parsed(self.base)

    def _base_rate(self, steps: ArrayLike) -> Rates:
        return self.base_schedule.rate(np.floor_divide(steps, self.steps_per_epoch) if self.steps_per_epoch else steps)

    @cached_property
    def _scale(self) -> float:
        base = float(self._base_rate(self.from_step))
        return self.lr / base if base else 0.0

    @cached_property
    def _floor(self) -> float:
        if self.final_lr is not None:
            return self.final_lr
        base = self.base_schedule
        return float(base.rate(base.total_steps - 1))

    def at(self, position: Rates) -> Rates:
        before = self._base_rate(position)
        if self.then == "hold":
            after = np.full_like(before, self.lr)
        elif self.then == "scale":
            after = before * self._scale
        else:
            after = shapes.half_cosine(
                position, from_step=self.from_step, total_steps=self.total_steps, lr=self.lr, final_lr=self._floor
            )
        return np.where(position < self.from_step, before, after)

    def phases(self) -> Bands:
        start, scale = float(self.from_step), float(self.steps_per_epoch or 1)
        bands = [(name, a * scale, b * scale) for name, a, b in self.base_schedule.phases()]
        kept = [(name, a, min(b, start)) for name, a, b in bands if a < start]
        return [*kept, (f"manual {self.then}", start, float(self.total_steps))]
