"""The training loss of a linear probe over the whole training set, its gradient and curvature, in float64, streamed.

L(w) is the mean class-weighted cross-entropy of softmax(z w + b) over all training windows, z the features
standardised as in the run, without dropout. `w` is (features + 1, classes): the probe's weights, its bias last. Rows
are read in blocks from the pack, so the memory needed does not grow with the number of windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegpt_daemon.data.windows import Windows

BLOCK = 256  # rows: 4 MB of float64 at 2,048 features stay in the cache (1.8 s of CPU a million rows, 1,024: 3.2)
TRIM_EVERY = 64  # blocks after which the pages of a mapped pack are given back
Array = NDArray[np.float64]


class Objective:
    """L(w) of one training set. `rows_read` counts the rows that were read, for whoever plans the time."""

    def __init__(
        self,
        windows: Windows,
        classes: int,
        shift: NDArray[np.float32],
        scale: NDArray[np.float32],
        *,
        weighted: bool,
    ) -> None:
        """`shift`, `scale`: (features,) each, z = x * scale + shift. `weighted`: classes count alike, n / (K n_k).

        Raises ValueError where a class has no window.
        """
        self.windows, self.classes, self.features = windows, classes, windows.pack.width
        share = np.bincount(windows.y, minlength=classes)
        if len(share) > classes or not share.all():
            raise ValueError(f"the training set has windows of {int((share > 0).sum())} of {classes} classes")
        weight = share.sum() / (classes * share) if weighted else np.ones(classes)
        self._weight = torch.from_numpy(weight.astype(np.float64))
        self._total = float((weight * share).sum())
        self._shift = torch.from_numpy(np.asarray(shift, np.float64))[:, None]
        self._scale = torch.from_numpy(np.asarray(scale, np.float64))[:, None]
        self._y = torch.from_numpy(windows.y)
        self.rows_read = 0

    def __len__(self) -> int:
        return len(self.windows)

    def value(self, w: Array) -> float:
        """L(w). `w`: (features + 1, classes)."""
        raw, bias = self._unstandardised(w)
        total = 0.0
        for begin, x in self._blocks():
            loss, _ = self._losses(torch.addmm(bias, x, raw.T), begin)
            total += float(loss.sum())
        return total / self._total

    def value_and_gradient(self, w: Array) -> tuple[float, Array]:
        """L(w) and its gradient, (features + 1, classes)."""
        raw, bias = self._unstandardised(w)
        total, product, residual = 0.0, torch.zeros_like(raw), torch.zeros_like(bias)
        for begin, x in self._blocks():
            loss, slope = self._losses(torch.addmm(bias, x, raw.T), begin)
            total += float(loss.sum())
            product += slope.T @ x  # x.T @ slope, a matrix of a column a class, takes eight times as long
            residual += slope.sum(0, keepdim=True)
        gradient = torch.cat([self._scale * product.T + self._shift @ residual, residual])
        return total / self._total, (gradient / self._total).numpy()

    def curvature(self, w: Array, rows: int) -> Array:
        """The curvature at `w` over about `rows` windows spread evenly, as one matrix for all classes.

        (features + 1, features + 1): the mean of c_i s_i z_i z_i', s_i = sum_k p_k (1 - p_k) / (K - 1). On weights
        that sum to zero over the classes this is the Hessian itself for two classes, an approximation for more.
        """
        raw, bias = self._unstandardised(w)
        size = self.features + 1
        total, seen = torch.zeros(size, size, dtype=torch.float64), 0
        for begin, x in self._blocks(every=max(1, len(self) // max(rows, 1))):
            chance = torch.softmax(torch.addmm(bias, x, raw.T), 1)
            s = (chance * (1 - chance)).sum(1) / (self.classes - 1) * self._weight[self._y[begin : begin + len(x)]]
            z = torch.cat([x * self._scale.T + self._shift.T, torch.ones(len(x), 1, dtype=torch.float64)], 1)
            z *= s.sqrt()[:, None]
            total.addmm_(z.T, z)
            seen += len(x)
        return (total / seen).numpy()

    def diagonal(self, w: Array, rows: int) -> Array:
        """The diagonal of `curvature`, (features + 1,), for probes whose whole matrix would not fit."""
        raw, bias = self._unstandardised(w)
        total, seen = torch.zeros(self.features + 1, dtype=torch.float64), 0
        for begin, x in self._blocks(every=max(1, len(self) // max(rows, 1))):
            chance = torch.softmax(torch.addmm(bias, x, raw.T), 1)
            s = (chance * (1 - chance)).sum(1) / (self.classes - 1) * self._weight[self._y[begin : begin + len(x)]]
            z = torch.cat([x * self._scale.T + self._shift.T, torch.ones(len(x), 1, dtype=torch.float64)], 1)
            total += s @ z.square()
            seen += len(x)
        return (total / seen).numpy()

    def moments(self) -> tuple[Array, Array]:
        """(mean of z z', mean of z times the centred class), class-weighted: what ridge regression is solved from.

        (features + 1, features + 1) and (features + 1, classes); the classes are 0 or 1, less 1 / K.
        """
        size = self.features + 1
        second = torch.zeros(size, size, dtype=torch.float64)
        first = torch.zeros(size, self.classes, dtype=torch.float64)
        for begin, x in self._blocks():
            y = self._y[begin : begin + len(x)]
            z = torch.cat([x * self._scale.T + self._shift.T, torch.ones(len(x), 1, dtype=torch.float64)], 1)
            target = torch.nn.functional.one_hot(y, self.classes).double() - 1 / self.classes
            weighted = z * self._weight[y][:, None]
            second.addmm_(weighted.T, z)
            first.addmm_(weighted.T, target)
        return (second / self._total).numpy(), (first / self._total).numpy()

    def margins(self, w: Array, windows: Windows) -> Array:
        """(n, classes) logits of the windows of any split of the same pack."""
        raw, bias = self._unstandardised(w)
        return np.concatenate([torch.addmm(bias, x, raw.T).numpy() for _, x in self._blocks(windows)])

    def _unstandardised(self, w: Array) -> tuple[Tensor, Tensor]:
        """(weights (classes, features), bias) on the features as stored: z w + b = x (scale w) + (shift w + b)."""
        whole = torch.from_numpy(np.ascontiguousarray(w, np.float64))
        weights, bias = whole[:-1], whole[-1:]
        return (self._scale * weights).T.contiguous(), self._shift.T @ weights + bias

    def _losses(self, logits: Tensor, begin: int) -> tuple[Tensor, Tensor]:
        """(loss of each row, its derivative by the logits), both class-weighted."""
        y = self._y[begin : begin + len(logits), None]
        weight = self._weight[y]
        logs = torch.log_softmax(logits, 1)
        slope = logs.exp()
        slope.scatter_add_(1, y, torch.full_like(weight, -1.0))
        return -logs.gather(1, y) * weight, slope * weight

    def _blocks(self, windows: Windows | None = None, every: int = 1) -> Iterator[tuple[int, Tensor]]:
        """(first row, (rows, features) float64) of every block, or of one in `every`."""
        windows = windows or self.windows
        rows, pack = windows.rows, windows.pack
        buffer = torch.empty(BLOCK, pack.width, dtype=torch.float64)
        for number, begin in enumerate(range(0, len(rows), BLOCK * every)):
            starts = rows[begin : begin + BLOCK]
            first, last = int(starts[0]), int(starts[-1])
            together = last - first == len(starts) - 1 and bool((np.diff(starts) == 1).all())
            block = pack.rows[first : last + 1] if together else pack.rows[starts]
            x = buffer[: len(starts)]
            x.copy_(torch.from_numpy(block))
            yield begin, x
            self.rows_read += len(starts)
            if number % TRIM_EVERY == TRIM_EVERY - 1:
                pack.trim()
        pack.trim()
