"""A chart is right to the row: every label stands in the row of its value, at every height and on every axis."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegwatch.charts import reduce as reducing
from eegwatch.charts.axis import Axis, time_text, time_ticks
from eegwatch.charts.braille import Canvas
from eegwatch.charts.model import EXPECTED, OBSERVED, ChartData, Series, limits
from eegwatch.charts.plot import AXIS, GUTTER, PHASE, Row, plot, x_ticks
from eegwatch.charts.reduce import reduce
from eegwatch.wording import significant

WIDTH = 60


def text_of(row: Row) -> str:
    return "".join(text for text, _ in row)


def labels_of(rows: list[Row]) -> dict[int, float]:
    """Row -> the value of the label that stands there."""
    found = {}
    for number, row in enumerate(rows):
        label, style = row[0]
        if style == AXIS and label.rstrip().endswith("┤"):
            found[number] = float(label.strip(" ┤").replace(",", ""))
    return found


def row_of_a_line(value: float, axis: Axis, height: int) -> int:
    """The row in which the canvas draws a horizontal line at this value."""
    canvas = Canvas(10, height)
    canvas.line(np.full(20, value), axis, 0)
    drawn = [number for number, runs in enumerate(canvas.rows()) if any(text.strip() for text, _ in runs)]
    assert len(drawn) == 1
    return drawn[0]


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(3, 60),
    low=st.floats(1e-9, 1e3),
    times=st.floats(1.001, 1e8),
    log=st.booleans(),
    rates=st.booleans(),
    bands=st.booleans(),
)
def test_each_label_stands_in_the_row_in_which_its_value_is_drawn(
    height: int, low: float, times: float, log: bool, rates: bool, bands: bool
) -> None:
    x = np.arange(400)
    y = np.geomspace(low, low * times, 400)
    data = ChartData(0, 399, [Series(x, y, "line", OBSERVED)], log=log, rates=rates)
    data.bands = [("warm-up", 0, 40), ("annealing", 40, 399)] if bands else []
    rows = plot(data, WIDTH, height)
    assert len(rows) == height and {len(text_of(row)) for row in rows} == {WIDTH}
    axis = limits(data, [reduce(x, y, 0, np.nextafter(399, np.inf), (WIDTH - GUTTER) * 2)])
    assert axis is not None
    plot_height = height - 1 - bands
    labels = labels_of(rows)
    for row, value in labels.items():
        true = row_of_a_line(value, axis, plot_height)
        assert row == true, f"{value} stands in row {row}, and is drawn in row {true}"
    ordered = [labels[row] for row in sorted(labels)]
    assert ordered == sorted(ordered, reverse=True)
    if plot_height >= 6:
        assert all(b - a >= 2 for a, b in zip(sorted(labels), sorted(labels)[1:], strict=False))


def rows_of_dots(rows: list[Row], column: int, style: str) -> set[int]:
    """The rows of a plot in which a cell column holds a dot of this style."""
    found = set()
    for number, row in enumerate(rows):
        at = 0
        for text, name in row:
            if name == style and at <= column < at + len(text) and text[column - at] not in " \u2800":
                found.add(number)
            at += len(text)
    return found


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(4, 40),
    least=st.floats(1e-6, 1.0),
    times=st.floats(2.0, 1e5),
    log=st.booleans(),
    seed=st.integers(0, 10**6),
    x_kind=st.sampled_from(["step", "epoch", "time"]),
    points=st.sampled_from([2, 3, 5, 12, 60, 104]),
)
def test_a_curve_is_drawn_in_the_rows_of_its_values_between_the_labels_around_it(
    height: int, least: float, times: float, log: bool, seed: int, x_kind: str, points: int
) -> None:
    """By the labels alone: a value between two labels is drawn between their rows, whatever the axes and the length."""
    rng = np.random.default_rng(seed)
    x = np.arange(points, dtype=np.float64)
    y = np.exp(rng.uniform(np.log(least), np.log(least * times), points))
    data = ChartData(0.0, points - 1.0, [Series(x, y, "line", OBSERVED)], log=log, rates=True)
    data.x_kind = x_kind
    rows = plot(data, WIDTH, height)
    labels = labels_of(rows)
    columns = np.minimum(x / (points - 1) * (WIDTH - GUTTER), WIDTH - GUTTER - 1).astype(int)
    scaled = np.log if min(labels.values()) > 0 and log else np.asarray
    rows_apart, apart = max(labels) - min(labels), scaled(max(labels.values())) - scaled(min(labels.values()))

    def beside(label: float, value: float) -> bool:
        """Less than a dot, a quarter of a row, from the label: the value's dot may be the next row's."""
        return bool(rows_apart and abs(scaled(label) - scaled(value)) <= apart / rows_apart / 4)

    for value, column in zip(y, columns, strict=True):
        drawn = rows_of_dots(rows, GUTTER + column, "observed")
        above = [row for row, label in labels.items() if label >= value and not beside(label, value)]
        below = [row for row, label in labels.items() if label <= value and not beside(label, value)]
        top, bottom = max(above, default=0), min(below, default=height - 2)
        assert any(top <= row <= bottom for row in drawn), (value, labels, drawn)


@pytest.mark.parametrize(("x_kind", "scale"), [("step", 1.0), ("epoch", 0.01), ("time", 1 / 7200)])
@pytest.mark.parametrize("last", [4, 9, 50, 333, 2000])
def test_a_tick_of_the_x_axis_stands_below_the_column_of_its_value(x_kind: str, scale: float, last: int) -> None:
    """One step every half second; a vertical rule at the tick's place goes through its words."""
    data = ChartData(0, last * scale, [Series(np.arange(last + 1) * scale, np.ones(last + 1), "line", OBSERVED)])
    data.x_kind = x_kind
    ticks = x_ticks(data, 6)
    assert len(ticks) >= 2 and len({words for _, words in ticks}) == len(ticks)
    for place, _ in ticks:
        ruled = replace(data, rules=[(place, "")])
        rows = plot(ruled, 90, 8)
        axis = text_of(rows[-1])
        columns = {column for column in range(GUTTER, 90) if text_of(rows[0])[column] == "┊"}
        inside = [a <= column < b for column in columns for a, b in words_in(axis)]
        assert place == 0 or any(inside), (place, axis, columns)


def words_in(axis: str) -> list[tuple[int, int]]:
    """Where the words of an x axis begin and end."""
    return [match.span() for match in re.finditer(r"[^─└╳]+", axis) if match[0].strip()]


@pytest.mark.parametrize("height", range(4, 40))
def test_a_flat_rate_is_drawn_in_no_row_of_another_label(height: int) -> None:
    """README's first picture: 1.2e-4 stood in the row that was labelled 1e-3."""
    x = np.arange(1, 2001)
    expected = 1.2e-4 + (3e-3 - 1.2e-4) * np.minimum(x / 200, 1)
    observed = np.full(2000, 1.2e-4)
    data = ChartData(0, 2000, [Series(x, expected, "dotted", EXPECTED), Series(x, observed, "line", OBSERVED)], log=True, rates=True)  # fmt: skip
    rows = plot(data, 80, height)
    flat = next(number for number, row in enumerate(rows) if any(style == "observed" for _, style in row))
    label = labels_of(rows).get(flat)
    row_spans = 3e-3 / 1.2e-4 * 1.15**2  # of the axis; a row of it spans that to the power of one over the rows
    assert label is None or abs(np.log(label / 1.2e-4)) <= np.log(row_spans) / max(1, height - 2)


def test_the_ticks_of_a_linear_axis_have_the_same_decimals() -> None:
    data = ChartData(0, 99, [Series(np.arange(100), np.linspace(0.79, 0.861, 100), "line", OBSERVED)])
    spelled = [row[0][0].strip(" ┤│") for row in plot(data, WIDTH, 16)]
    decimals = {len(word.partition(".")[2]) for word in spelled if word and word[0].isdigit()}
    assert decimals == {2}


@pytest.mark.parametrize("last", [2, 3, 4, 5, 7, 12, 30, 101])
def test_a_short_run_has_whole_steps_on_its_axis_each_once(last: int) -> None:
    data = ChartData(0, last, [Series(np.arange(1, last + 1), np.ones(last), "line", OBSERVED)])
    words = text_of(plot(data, 100, 8)[-1]).strip(" └─╳").replace("╳", "─")
    ticks = [word for word in words.split("─") if word]
    assert ticks == sorted(set(ticks), key=int) and all(word.isdigit() for word in ticks) and len(ticks) >= 2


@pytest.mark.parametrize(
    ("hours", "unit"), [(10 / 3600, "s"), (3 / 60, "s"), (0.5, "min"), (1.5, "min"), (9, "h"), (50, "h"), (600, "d")]
)
def test_times_have_the_unit_that_a_person_would_choose(hours: float, unit: str) -> None:
    seconds, step = time_ticks(Axis(0, hours * 3600), 6)
    words = [time_text(s, step) for s in seconds]
    assert len(words) == len(set(words)) and 2 <= len(words) <= 8
    assert all(word.endswith(unit) or word.split()[0] == "0" for word in words), words
    assert all(float(word.split()[0]) == int(float(word.split()[0])) for word in words)


@pytest.mark.parametrize("width", range(30, 140, 7))
def test_no_phase_name_is_cut(width: int) -> None:
    data = ChartData(0, 2000, [Series(np.arange(2000), np.ones(2000), "line", OBSERVED)])
    data.bands = [("warm-up", 0, 200), ("annealing", 200, 1700), ("manual hold", 1700, 2000)]
    (row,) = [text for row in plot(data, width, 10) for text, style in row if style == PHASE]
    words = row.replace("│", " ").split()
    assert "…" not in row
    assert "".join(words).replace("manualhold", "") in ("", "annealing", "warm-upannealing", "warm-up")


@settings(max_examples=200, deadline=None)
@given(
    places=st.lists(st.integers(0, 399), min_size=1, max_size=9, unique=True),
    sizes=st.lists(st.floats(3.0, 5e4), min_size=9, max_size=9),
    width=st.integers(24, 90),
)
def test_the_value_of_an_outlier_stands_whole_beside_its_own_mark(
    places: list[int], sizes: list[float], width: int
) -> None:
    """Two values that ran into each other, or one that the edge cut, were read as another number."""
    y = 0.5 + 0.1 * np.sin(np.arange(400))
    y[places] = sizes[: len(places)]
    data = ChartData(0, 399, [Series(np.arange(400), y, "noisy", OBSERVED)])
    top = text_of(plot(data, width, 9)[0])[GUTTER:]
    axis = limits(data, [reduce(np.arange(400), y, 0, np.nextafter(399, np.inf), (width - GUTTER) * 2)])
    assert axis is not None
    true = {
        int(place / 399 * (width - GUTTER)): significant(value)
        for place, value in sorted(zip(places, sizes, strict=False), key=lambda one: one[1])
        if value > axis.high
    }
    for match in re.finditer(r"[0-9.,e]+", top):
        beside = [match.start() - 1, match.end()]
        names = {words for cell, words in true.items() if min(abs(cell - at) for at in beside) <= 1}
        assert match.group() in names, (top, true)
        assert any(0 <= at < len(top) and top[at] == "▲" for at in beside), top
    if true and max(true) + 8 < width - GUTTER and len(true) == 1:
        assert next(iter(true.values())) in top


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_mean_of_a_column_does_not_depend_on_how_many_values_are_summed_at_once(
    kind: type[np.floating[Any]], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reducing, "SUMMED_AT_ONCE", at_once)
    draw = np.random.default_rng(at_once)
    for columns in (1, 3, 50):
        values = draw.normal(1e3, 1.0, 333).astype(kind)
        reduced = reducing.reduce(np.arange(333), values, 0, 400, columns)
        parts = [values[a:b] for a, b in zip(reduced.edges[:-1], reduced.edges[1:], strict=True)]
        means = [part.astype(np.float64).mean() if len(part) else np.nan for part in parts]
        assert np.allclose(reduced.mean, means, rtol=1e-13, atol=0, equal_nan=True)
        assert [least for least in reduced.least if least == least] == [part.min() for part in parts if len(part)]
