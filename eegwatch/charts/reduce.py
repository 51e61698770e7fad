"""Series reduced to one minimum, maximum and mean per dot column: a million points cost 1 ms, and no spike is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.axis import Axis, Floats

SUMMED_AT_ONCE = 1 << 17  # values: as float64 a megabyte, which stays in the processor's cache
GAP_COLUMNS, GAP_TIMES = 3, 4  # so many empty dot columns, and so many times the usual distance, are a gap


@dataclass
class Columns:
    """A series reduced to dot columns: least, most and mean value of each, nan where a column has no point.

    Column i holds the points from `edges[i]` up to `edges[i + 1]`.
    """

    least: Floats
    most: Floats
    mean: Floats
    edges: NDArray[np.int64]


def places(x: NDArray[np.generic], values: Floats) -> NDArray[np.int64]:
    """The index of each value among points sorted by x: the first point not below it.

    Floats looked for among integers would have all of these converted, a millisecond a million.
    """
    if np.issubdtype(x.dtype, np.integer):
        return np.searchsorted(x, np.ceil(values).astype(np.int64), side="left")
    return np.searchsorted(x, values, side="left")


def reduce(x: NDArray[np.generic], y: NDArray[np.generic], left: float, right: float, columns: int) -> Columns:
    """Reduce points sorted by x to `columns` equal columns over [left, right): exact extrema, no sampling."""
    edges = places(x, left + (right - left) * np.arange(columns + 1) / columns)
    starts, ends = edges[:-1], edges[1:]
    filled = ends > starts
    empty = np.full(columns, np.nan)
    result = Columns(empty.copy(), empty.copy(), empty, edges)
    if not filled.any():
        return result
    piece = y[starts[filled][0] : ends[-1]]
    at = starts[filled] - starts[filled][0]
    with np.errstate(invalid="ignore"):
        sums = _sums(piece, at)
    if np.isfinite(sums).all():  # so is every value
        result.least[filled] = np.minimum.reduceat(piece, at)
        result.most[filled] = np.maximum.reduceat(piece, at)
        result.mean[filled] = sums / (ends - starts)[filled]
        return result
    finite = np.isfinite(piece)
    result.least[filled] = np.fmin.reduceat(piece, at)
    result.most[filled] = np.fmax.reduceat(piece, at)
    counts = np.add.reduceat(finite, at, dtype=np.float64)
    total = np.add.reduceat(np.where(finite, piece, 0), at, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        result.mean[filled] = np.where(counts > 0, total / counts, np.nan)
    return result


def _sums(values: NDArray[np.generic], at: NDArray[np.int64]) -> Floats:
    """float64 sums of the parts of `values` that begin `at`; millions of float32 are not converted all at once."""
    if values.dtype == np.float64:
        return np.asarray(np.add.reduceat(values, at))
    ends = np.append(at[1:], len(values))
    sums, first = np.empty(len(at)), 0
    while first < len(at):
        beyond = max(first + 1, int(np.searchsorted(ends, at[first] + SUMMED_AT_ONCE, side="right")))
        part = values[at[first] : ends[beyond - 1]]
        sums[first:beyond] = np.add.reduceat(part, at[first:beyond] - at[first], dtype=np.float64)
        first = beyond
    return sums


def bridged(values: Floats) -> Floats:
    """Empty columns between filled ones, by straight lines: a run of few steps is a line, not a row of dots.

    Except across a gap: empty columns in a row, several times as many as usual, are records that are missing.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < 2:
        return values
    inside = np.arange(known[0], known[-1] + 1)
    out = values.copy()
    out[inside] = np.interp(inside, known, values[known])
    for first, last in gaps(values):
        out[first:last] = np.nan
    return out


def gaps(values: Floats) -> list[tuple[int, int]]:
    """(first, last + 1) of the empty columns where records are missing, judged by how far apart they usually are."""
    known = np.flatnonzero(np.isfinite(values))
    apart = np.diff(known)
    if len(apart) < 3:
        return []
    wide = np.flatnonzero(apart > max(GAP_COLUMNS, GAP_TIMES * float(np.median(apart))))
    return [(int(known[i]) + 1, int(known[i + 1])) for i in wide]


def smooth(values: Floats, width: float) -> Floats:
    """Gaussian-weighted mean over columns (standard deviation `width`), ignoring empty ones; nan stays nan."""
    if width <= 0 or not np.isfinite(values).any():
        return values
    reach = int(3 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), kernel)[reach:-reach]
    weight = np.convolve(known.astype(float), kernel)[reach:-reach]
    return np.where(known, total / np.maximum(weight, 1e-300), np.nan)


def of_bulk(y: NDArray[np.generic], reduced: Columns, axis: Axis) -> Floats:
    """Mean of each column with values beyond the axis clipped to its limit, so that a spike does not bend the line."""
    means, (first, last) = reduced.mean.copy(), (reduced.edges[0], reduced.edges[-1])
    seen = y[first:last]
    outside = np.flatnonzero((seen > axis.high) | (seen < axis.low))  # type: ignore[operator]
    values = np.asarray(seen[outside], np.float64)
    outside, values = outside[np.isfinite(values)] + first, values[np.isfinite(values)]
    column = np.searchsorted(reduced.edges, outside, side="right") - 1
    excess = np.bincount(column, np.clip(values, axis.low, axis.high) - values, len(means))
    return means + excess / np.maximum(np.diff(reduced.edges), 1)
