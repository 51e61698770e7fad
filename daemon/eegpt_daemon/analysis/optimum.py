"""The optimum of a linear probe's training loss, with a certificate: P = L(w) + lambda/2 |w|^2 solved to a known gap.

P is strongly convex with constant lambda, so P(w) - P* <= |grad P(w)|^2 / (2 lambda). For every w of norm R,
L(w) >= P* - lambda R^2 / 2. Over all lambda, the best of these bounds is the least loss of any probe of that norm.

scipy's L-BFGS-B minimises over coordinates in which the curvature at the start of a round is about the identity:
some ten evaluations a lambda where the plain coordinates need hundreds.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from eegpt_daemon.analysis.objective import Array, Objective
from eegwatch.run.folder import write_whole

LAMBDAS = tuple(float(f"{10.0 ** (-k / 2):.6g}") for k in range(13))  # 1 … 1e-6, two a decade
LEAST_LAMBDA, GREATEST_LAMBDA = 1e-8, 1e4
GAP = 1e-9
ROUNDING = 1e-11  # of a mean of float64 losses, taken off every bound
SAMPLE = 1 << 16  # windows that the curvature is taken from
DENSE = 4096  # features up to which it is a whole matrix (134 MB), else its diagonal
ROUNDS, ITERATIONS = 40, 25
REFINEMENTS = 3
NEAR = 1e-3  # of a norm, between the solutions on both sides of it: closer says no more to a reader


@dataclass(frozen=True)
class Solution:
    """Near the minimiser of P at one lambda: `w` (features + 1, classes), `objective` P(w), certified `gap`, L(w)."""

    lam: float
    w: Array
    objective: float
    gap: float
    loss: float

    @property
    def norm(self) -> float:
        return norm(self.w)

    def below(self, radius: float) -> float:
        """A lower bound on L(w) for |w| <= radius; a negative one is trivial."""
        return self.objective - self.gap - self.lam * radius**2 / 2 - ROUNDING


def norm(w: Array) -> float:
    """|w| after what is common to all classes is taken off, which moves no probability: no longer than |w|."""
    return float(np.linalg.norm(w - w.mean(1, keepdims=True)))


class _Reached(Exception):
    """The gap is small enough."""


def solve(objective: Objective, lam: float, start: Array | None = None, gap: float = GAP) -> Solution:
    """Minimise P at one lambda. The gap that was reached is in the result, also where it is not the one asked for."""
    w = np.zeros((objective.features + 1, objective.classes)) if start is None else start
    (best, slope), before = _at(objective, lam, w), math.inf
    for _ in range(ROUNDS):
        if best.gap <= gap or not best.gap < before:
            break
        before = best.gap
        best, slope = _round(objective, lam, best, slope, gap)
    return best


def _at(objective: Objective, lam: float, w: Array) -> tuple[Solution, Array]:
    """(P and its gap at a point, the gradient of P there)."""
    loss, gradient = objective.value_and_gradient(w)
    gradient += lam * w
    penalty = lam / 2 * float((w**2).sum())
    return Solution(lam, w, loss + penalty, float((gradient**2).sum()) / (2 * lam), loss), gradient


def _round(objective: Objective, lam: float, start: Solution, slope: Array, gap: float) -> tuple[Solution, Array]:
    """L-BFGS-B from one point, in coordinates whitened by the curvature there; the point of the least gap."""
    to_w, to_v, back = _whitening(objective, lam, start.w)
    # L-BFGS-B makes its first step one long whatever the gradient: in these units that is the step of Newton's method
    unit = float(np.linalg.norm(back(slope))) or 1.0
    begin, best, best_slope = to_v(start.w).ravel() / unit, start, slope

    def evaluate(flat: Array) -> tuple[float, Array]:
        nonlocal best, best_slope
        if np.array_equal(flat, begin):
            return start.objective, back(slope).ravel() * unit
        now, gradient = _at(objective, lam, to_w(flat.reshape(start.w.shape) * unit))
        if now.gap < best.gap:
            best, best_slope = now, gradient
        if now.gap <= gap:
            raise _Reached
        return now.objective, back(gradient).ravel() * unit

    try:
        minimize(
            evaluate,
            begin,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "maxcor": ITERATIONS, "ftol": 0.0, "gtol": 0.0},
        )
    except _Reached:
        pass
    return best, best_slope


Map = Callable[[Array], Array]


def _whitening(objective: Objective, lam: float, w: Array) -> tuple[Map, Map, Map]:
    """(v -> w, w -> v, gradient by w -> by v) with the curvature at w plus lambda about the identity in v."""
    if objective.features > DENSE:
        root = np.sqrt(objective.diagonal(w, SAMPLE) + lam)[:, None]
        return (lambda v: v / root), (lambda w: w * root), (lambda g: g / root)
    matrix = objective.curvature(w, SAMPLE)
    matrix[np.diag_indices_from(matrix)] += lam
    root = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    return (
        lambda v: solve_triangular(root, v, lower=True, trans="T", check_finite=False),
        lambda w: root.T @ w,
        lambda g: solve_triangular(root, g, lower=True, check_finite=False),
    )


class LambdaPath:
    """The solutions of one training set along lambda, kept in a file beside the cache as they are found."""

    def __init__(
        self,
        objective: Objective,
        kept: Path,
        gap: float = GAP,
        on_solution: Callable[[Solution], None] = lambda _: None,
    ) -> None:
        """`told` is called with every solution that had to be computed."""
        self.objective, self.kept, self.gap, self.on_solution = objective, kept, gap, on_solution
        self.solutions = {s.lam: s for s in _read(kept, objective) if s.gap <= gap}

    def at(self, lam: float) -> Solution:
        """The solution at a lambda: kept, or solved from the nearest one and kept."""
        if lam not in self.solutions:
            near = min(self.solutions.values(), key=lambda s: abs(math.log(s.lam / lam)), default=None)
            self.solutions[lam] = solve(self.objective, lam, near.w if near else None, self.gap)
            _write(self.kept, self.solutions.values())
            self.on_solution(self.solutions[lam])
        return self.solutions[lam]

    def along(self, lambdas: Iterable[float] = LAMBDAS) -> list[Solution]:
        """Solutions from the largest lambda to the smallest."""
        return [self.at(lam) for lam in sorted(lambdas, reverse=True)]

    def around(self, radius: float) -> tuple[Solution, float]:
        """(what bounds the loss of probes of norm `radius` best, the loss of a probe that is as short and nearly best).

        Solved further, outside the lambdas so far or between two, until a solution's own norm comes near.
        """
        self._reach_out(radius)
        for _ in range(REFINEMENTS):
            solutions = self.solutions.values()
            longer = min((s for s in solutions if s.norm > radius), key=lambda s: s.norm, default=None)
            shorter = max((s for s in solutions if s.norm <= radius), key=lambda s: s.norm, default=None)
            if longer is None or shorter is None or longer.norm - shorter.norm < NEAR * radius:
                break
            lam = _between(longer, shorter, radius)
            if lam in self.solutions:
                break
            self.at(lam)
        best = max(self.solutions.values(), key=lambda s: s.below(radius))
        nearest = min(self.solutions.values(), key=lambda s: abs(s.norm - radius))
        if nearest.norm <= radius:
            return best, nearest.loss
        return best, self.objective.value(nearest.w * (radius / nearest.norm))

    def _reach_out(self, radius: float) -> None:
        """Solutions below and above a norm, as far as there are any."""
        lam = min(self.solutions)
        while self.solutions[lam].norm < radius and lam > LEAST_LAMBDA:
            lam = max(float(f"{lam / 10**0.5:.6g}"), LEAST_LAMBDA)
            self.at(lam)
        lam = max(self.solutions)
        while self.solutions[lam].norm > radius and lam < GREATEST_LAMBDA:
            lam *= 10
            self.at(lam)


def _between(longer: Solution, shorter: Solution, radius: float) -> float:
    """The lambda at which |w| is about `radius`: straight between two solutions in (log norm, log lambda)."""
    low, high = math.log(shorter.norm or 1e-300), math.log(longer.norm)
    part = (math.log(radius) - low) / (high - low)
    return float(f"{math.exp(math.log(shorter.lam) + part * math.log(longer.lam / shorter.lam)):.6g}")


def _read(kept: Path, objective: Objective) -> list[Solution]:
    """The solutions in a file; empty if the file is damaged or has another shape, and they are computed again."""
    shape = (objective.features + 1, objective.classes)
    try:
        with np.load(kept) as stored:
            rows = zip(
                stored["lam"].tolist(),
                stored["w"],
                stored["objective"].tolist(),
                stored["gap"].tolist(),
                stored["loss"].tolist(),
                strict=True,
            )
            return [Solution(*row) for row in rows if row[1].shape == shape]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []


def _write(kept: Path, solutions: Iterable[Solution]) -> None:
    stored = list(solutions)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        lam=[s.lam for s in stored],
        w=np.stack([s.w for s in stored]),
        objective=[s.objective for s in stored],
        gap=[s.gap for s in stored],
        loss=[s.loss for s in stored],
    )
    write_whole(kept, buffer.getvalue())
