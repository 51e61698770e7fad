"""The base of all schedules: length, unit, a rate at each position, an optional warm-up.

A family implements `curve(q, length)`: the rate `q` positions after the warm-up's end (or after position 0, see
`Warmed`), where `length` is the number of positions that its decay takes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from eegwatch.schedule import shapes
from eegwatch.schedule.shapes import Rates, WarmupType

WarmupMode = Literal["reset", "overlay", "join", "multiply", "blend"]
Bands = list[tuple[str, float, float]]

PEAK_SAMPLES = 4097


class ScheduleError(ValueError):
    """The declared schedule is not one: which parameter is wrong, and how."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", dict=True):
    """Common part of every schedule: its length T, and whether positions count steps or epochs.

    `total_steps` is the length that the scheduler was built for; the run's own length stands in the run record.
    """

    total_steps: int
    unit: Literal["step", "epoch"] = "step"
    positive: ClassVar[tuple[str, ...]] = ()

    def rate(self, position: ArrayLike) -> Rates:
        """The learning rate at each position (any shape, float64). A position below 0 counts as 0."""
        with np.errstate(all="ignore"):  # a growing schedule may overflow to inf: that is its rate
            return self.at(np.maximum(np.asarray(position, np.float64), 0.0))

    def at(self, position: Rates) -> Rates:
        """The curve itself, for positions from 0 on."""
        raise TypeError(f"{type(self).__name__} has no curve")

    def peak(self) -> float:
        """The highest rate over the run: the declared one where the family has it, else the curve's own maximum."""
        declared = getattr(self, "max_lr", None)
        return self.highest() if declared is None else float(declared)

    def highest(self) -> float:
        """The highest rate at 4,097 positions spread over the run (every position of a shorter one)."""
        return float(np.max(self.rate(np.unique(np.linspace(0, self.total_steps - 1, PEAK_SAMPLES).round()))))

    def phases(self) -> Bands:
        """Named bands (name, first position, end position) for the chart."""
        return []

    def check(self) -> str | None:
        """The problem of a combination of parameters that are legal one by one; None if there is none."""
        return None

    def parameters(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in self.__struct_fields__ if n not in ("total_steps", "unit")}


class Warmed(Schedule, frozen=True, kw_only=True):
    """A family that can be preceded by a warm-up of `warmup_steps` positions (a fraction is legal) from `initial_lr`.

    `warmup_mode` says how the warm-up and the curve meet. W is `warmup_steps`:

    - `reset`: initial -> peak over W, then the curve from its position 0 (torch SequentialLR, transformers, fairseq).
    - `overlay`: initial -> peak over W, then the curve at p, as if it had run all along (timm without warmup_prefix).
    - `join`: initial -> the curve's value at W, then the curve at p (detectron2's WarmupParamScheduler).
    - `multiply`: the running curve times a factor that goes from initial / peak to 1 (mmcv, torchvision's detection).
    - `blend`: initial * (1 - x) + curve(p) * x with x = p / W (YOLO).

    `warmup_type` is the shape of the way up: `linear`, `constant` (initial until W), `exponential`, `cosine`, `1-sqrt`.
    """

    warmup_steps: float = 0
    initial_lr: float = 0.0
    warmup_mode: WarmupMode = "reset"
    warmup_type: WarmupType = "linear"

    decay_name: ClassVar[str] = "decay"

    def top(self) -> float:
        """The rate that the warm-up leads to."""
        return float(self.max_lr)  # type: ignore[attr-defined]

    def length(self) -> float:
        """Positions from the curve's beginning to the schedule's end, or `decay_steps` where that is given."""
        given: float | None = getattr(self, "decay_steps", None)
        if given is not None:
            return given
        return self.total_steps - (self.warmup_steps if self.warmup_mode == "reset" else 0)

    def curve(self, q: Rates, length: float) -> Rates:
        raise TypeError(f"{type(self).__name__} has no curve")

    def at(self, position: Rates) -> Rates:
        W, length = self.warmup_steps, self.length()
        if W <= 0:
            return self.curve(position, length)
        if self.warmup_mode == "reset":
            curve = self.curve(np.maximum(position - W, 0.0), length)
            end: float | Rates = self.top()
        else:
            curve = self.curve(position, length)
            end = self.top()
            if self.warmup_mode == "join":
                end = self.curve(np.asarray(W, np.float64), length)
            elif self.warmup_mode == "blend":
                end = curve
        x = np.minimum(position / W, 1.0)
        if self.warmup_mode == "multiply":
            top = self.top()
            rising = curve * shapes.rise(x, self.initial_lr / top if top else 0.0, 1.0, self.warmup_type)
        else:
            rising = shapes.rise(x, self.initial_lr, end, self.warmup_type)
        return np.where(position < W, rising, curve)

    def peak(self) -> float:
        floor: float = getattr(self, "final_lr", 0.0)  # a cosine from a small base rate to a larger eta_min rises
        return max(self.top(), floor, self.initial_lr if self.warmup_steps > 0 else 0.0)

    def phases(self) -> Bands:
        W = float(self.warmup_steps)
        end = float(self.total_steps)
        given: float | None = getattr(self, "decay_steps", None)
        bands: Bands = [("warm-up", 0.0, W)] if W > 0 else []
        if given is None:
            return [*bands, (self.decay_name, W, end)]
        stop = min((W if self.warmup_mode == "reset" else 0.0) + float(given), end)
        rest: Bands = [(self.rest_name(), stop, end)] if stop < end else []
        return [*bands, (self.decay_name, W, stop), *rest]

    def rest_name(self) -> str:
        """The chart's name for the part after `decay_steps`."""
        return "floor"
