"""What the terminal shows is what was drawn last, to the row."""

from __future__ import annotations

import numpy as np
import pytest
from textual.app import App, ComposeResult

from eegwatch.charts.model import EXPECTED, OBSERVED, ChartData, Series
from eegwatch.charts.plot import plot
from eegwatch.tui.text_frame import text_of
from eegwatch.tui.widgets.chart import Chart


@pytest.mark.parametrize("border", ["round", "none"])
async def test_every_row_that_changed_is_painted_again_and_no_other_row_for_it(border: str) -> None:
    """The rows on the terminal are those that were drawn last: the top one too, at every border and level."""
    x = np.arange(400)

    class One(App[None]):
        CSS = f"Chart {{ border: {border} white; border-top: solid white; height: 14; }}"

        def compose(self) -> ComposeResult:
            yield Chart("a chart", id="only")

    async with One().run_test(size=(60, 16)) as pilot:
        chart = pilot.app.query_one(Chart)
        for level in (3e-4, 1e-4, 3e-4, 2e-6, 1e-5, 3e-4, 1e-6):
            ends = Series(x, np.geomspace(1e-6, 3e-4, 400), "dotted", EXPECTED)
            flat = Series(x, np.full(400, level), "line", OBSERVED)
            chart.show(ChartData(0, 399, [ends, flat], log=True, rates=True))
            await pilot.pause()
            shown = text_of(pilot.app, 60, 16).splitlines()  # type: ignore[arg-type]
            left = chart.content_region.x
            drawn = ["".join(text for text, _ in row) for row in plot(chart.data, *chart.content_size)]
            top = chart.content_region.y
            on_screen = [line[left : left + len(drawn[0])].rstrip() for line in shown[top : top + len(drawn)]]
            assert on_screen == [row.rstrip() for row in drawn]
