"""The part of a run that the charts show: the whole run, a zoomed window, or the newest steps.

Steps are the coordinate; epochs and wall time are ways to write them on the axis. Values are immutable: every move
makes another View.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import History
from eegwatch.wording import exact_rate, fitting, rate, significant

XAxis = Literal["step", "epoch", "time"]
AXES: tuple[XAxis, ...] = ("step", "epoch", "time")
NARROWEST = 10.0  # steps: closer there is nothing to see
ZOOM, PAN = 2.0, 0.2
SMOOTHINGS = (0.0, 1.0, 3.0, 8.0, 20.0)  # dot columns of the Gaussian over the loss


@dataclass(frozen=True)
class View:
    """`width` None: the whole run. `follow`: the right edge is the newest step. `cursor`: a step that is read out."""

    left: float = 0.0
    width: float | None = None
    follow: bool = False
    cursor: int | None = None
    axis: XAxis = "step"
    smoothing: int = 2

    def window(self, history: History) -> tuple[float, float]:
        """(first, last) step of what is shown."""
        whole = whole_of(history)
        if self.width is None:
            return 0.0, whole
        if self.follow:
            right = max(float(history.step_done), self.width)
            return right - self.width, right
        return self.left, self.left + self.width

    def zoomed(self, history: History, factor: float, about: float | None = None) -> View:
        """Closer (factor > 1) or farther, about a step: the cursor's, else the newest one in sight."""
        left, right = self.window(history)
        whole = whole_of(history)
        width = max((right - left) / factor, NARROWEST)
        if width >= whole:
            return replace(self, left=0.0, width=None, follow=False)
        if about is None:
            newest = float(min(max(history.step_done, left), right))
            about = float(self.cursor) if self.cursor is not None and left <= self.cursor <= right else newest
        share = (about - left) / (right - left)
        begin = min(max(0.0, about - share * width), whole - width)
        return replace(self, left=begin, width=width)

    def panned(self, history: History, share: float) -> View:
        """Moved by a share of the width; following ends."""
        if self.width is None:
            return self
        left, _ = self.window(history)
        most = whole_of(history) - self.width
        return replace(self, left=min(max(0.0, left + share * self.width), most), follow=False)

    def at_edge(self, history: History, *, end: bool) -> View:
        """The same width at the run's beginning, or at its newest step."""
        if self.width is None:
            return self
        left = max(0.0, min(history.step_done, whole_of(history)) - self.width) if end else 0.0
        return replace(self, left=left, follow=False)

    def around(self, first: float, last: float) -> View:
        """Steps first … last, with a margin, without a cursor."""
        margin = max((last - first) * 0.1, NARROWEST / 2)
        left = max(0.0, first - margin)
        return replace(self, left=left, width=last + margin - left, follow=False, cursor=None)

    def following(self, history: History) -> View:
        """The newest steps, as many as are in sight now; a tenth of the run where all of it was."""
        if self.follow:
            return replace(self, follow=False)
        width = self.width or max(NARROWEST, whole_of(history) / 10)
        return replace(self, width=width, follow=True)

    def pointed(self, history: History, step: float) -> View:
        """The cursor on the logged step nearest to this one."""
        steps = history.step
        if not len(steps):
            return self
        at = int(np.searchsorted(steps, step))
        near = min(max(at, 0), len(steps) - 1)
        if near > 0 and abs(steps[near - 1] - step) < abs(steps[near] - step):
            near -= 1
        return replace(self, cursor=int(steps[near]))

    def stepped(self, history: History, columns: int) -> View:
        """The cursor moved by about so many hundredths of the window; it appears at the newest step in sight."""
        left, right = self.window(history)
        if self.cursor is None:
            return self.pointed(history, min(right, history.step_done))
        move = max(1.0, (right - left) / 100)
        moved = self.pointed(history, self.cursor + columns * move)
        if moved.cursor == self.cursor and len(history.step):  # sparse logs: to the next record at least
            at = int(np.searchsorted(history.step, self.cursor)) + (1 if columns > 0 else -1)
            moved = replace(self, cursor=int(history.step[min(max(at, 0), len(history.step) - 1)]))
        return moved

    def next_axis(self) -> View:
        return replace(self, axis=AXES[(AXES.index(self.axis) + 1) % len(AXES)])

    def smoothed(self, change: int) -> View:
        return replace(self, smoothing=min(max(self.smoothing + change, 0), len(SMOOTHINGS) - 1))


def whole_of(history: History) -> float:
    total = history.run.total_steps if history.run else None
    return float(max(total or 0, history.step_done, 1))


def on_axis(history: History, axis: XAxis, steps: NDArray[np.generic]) -> NDArray[np.float64]:
    """Steps as they stand on the axis: themselves, epochs, or hours since the first record (ahead: at that pace)."""
    x = np.asarray(steps, np.float64)
    run = history.run
    if axis == "epoch" and run is not None and run.steps_per_epoch:
        return x / run.steps_per_epoch
    if axis == "time" and history.length > 1:
        hours = np.maximum.accumulate(history.time - history.time[0]) / 3600
        first, last = float(history.step[0]), float(history.step[-1])
        pace = max(float(hours[-1]), 1e-9) / max(last - first, 1.0)
        known = np.interp(x, history.step, hours)
        return np.where(x > last, hours[-1] + (x - last) * pace, np.where(x < first, (x - first) * pace, known))
    return x


def readout(history: History, cursor: int, expected: float | None, width: int = 200) -> str:
    """The values at the cursor: step, LR, expected LR, epoch, loss, gradient norm; as many as fit into a width."""
    at = int(np.searchsorted(history.step, cursor))
    if at >= history.length or int(history.step[at]) != cursor:
        return f"step {cursor:,}: no record"
    parts = [f"step {cursor:,}"]
    run, lr = history.run, float(history.lr[at])
    parts.append(f"LR {rate(lr) if expected is None else exact_rate(lr, expected)}")
    if expected is not None:
        parts.append(f"expected {exact_rate(expected, lr)}")
    if run is not None and run.steps_per_epoch:
        epoch, batch = divmod(cursor - 1, run.steps_per_epoch)
        parts.append(f"epoch {epoch + 1}, batch {batch + 1:,}")
    if np.isfinite(history.loss[at]):
        parts.append(f"loss {history.loss[at]:.4f}")
    if np.isfinite(history.grad_norm[at]):
        parts.append(f"grad norm {significant(float(history.grad_norm[at]))}")
    return fitting(parts, width, " · ")
