"""The charts in a grid: as many as fit, or those that match a pattern, or one alone; rows can be resized."""

from __future__ import annotations

from textual.containers import Grid
from textual.message import Message

from eegwatch.charts.kinds import kinds
from eegwatch.charts.model import ChartKind, ChartStyle, legend
from eegwatch.run.history import History
from eegwatch.tui.widgets.chart import TITLE_FRAME, Chart
from eegwatch.wording import pattern_of

ROWS_EACH, COLUMNS_EACH = 12, 70  # cells: a chart gets at least about this much where there is a choice
SHORT = 2  # rows by which all charts together may be lower than that
BOTH_FROM = 13  # rows of the grid from which LR and loss both stay on the screen
LR_WRONG = 1.6  # times the height of the others, while a finding is about the learning rate
WEIGHT_STEP = 1.25  # a key makes a row so much taller


class ChartGrid(Grid):
    """Shows the charts of a history. `alone`: the name of the only one; `pattern`: of those to show."""

    DEFAULT_CSS = "ChartGrid { grid-size: 1; width: 1fr; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__(id="charts")
        self.charts: dict[str, Chart] = {}
        self.alone: str | None = None
        self.pattern = ""
        self.columns: int | None = None  # None: as many as fit
        self.logarithmic: frozenset[str] = frozenset({"lr"})
        self.weights: dict[int, float] = {}
        self.wanted = 1.0  # of the first row
        self._arranged: object = None

    class Resized(Message):
        """The grid has another size: other charts may fit."""

    def on_resize(self) -> None:
        self.post_message(self.Resized())

    # ---- which ----

    def chosen(self, history: History) -> list[ChartKind]:
        """The charts that are shown now, in order."""
        there = kinds(history)
        if self.alone is not None:
            return [kind for kind in there if kind.name == self.alone] or there[:1]
        width, height = self.size
        if self.pattern:
            pattern = pattern_of(self.pattern)
            matching = [kind for kind in there if pattern.search(f"{kind.name} {kind.title}")]
            return matching or there[:1]
        if height < BOTH_FROM:
            return there[:1]
        columns = self.columns or max(1, width // COLUMNS_EACH)
        return there[: max(2, columns * ((height + SHORT) // ROWS_EACH))]

    def _columns(self, shown: int) -> int:
        fit = self.columns or max(1, self.size.width // COLUMNS_EACH)
        return min(fit, shown) if self.columns or shown > 2 else 1

    def draw(self, history: History, style: ChartStyle, *, wrong_rate: bool = False) -> None:
        """Draw every chart that is shown. `wrong_rate`: the learning rate is what to look at, it gets more room."""
        shown = self.chosen(history)
        columns = self._columns(len(shown))
        rows = -(-len(shown) // columns)
        self.wanted = LR_WRONG if wrong_rate and rows > 1 and shown[0].name == "lr" else 1.0
        arranged = tuple(kind.name for kind in shown), columns, tuple(self.weight(i) for i in range(rows))
        if arranged != self._arranged:
            self._arranged = arranged
            self._place_charts(history, shown, columns, rows)
        for kind in shown:
            chart = self.charts[kind.name]
            data = kind.draw(history, style)
            width = chart.title_width or self.size.width // columns - TITLE_FRAME
            chart.border_title = legend(kind, style, data, width)
            cursor = style.view.cursor
            value = kind.value_at(history, cursor) if cursor is not None else ""
            chart.border_subtitle = f"step {cursor:,}: {value}" if value else ""
            chart.show(data)

    def _place_charts(self, history: History, shown: list[ChartKind], columns: int, rows: int) -> None:
        names = [kind.name for kind in shown]
        order = {kind.name: i for i, kind in enumerate(kinds(history))}
        for name in names:
            if name not in self.charts:
                chart = self.charts[name] = Chart(name=name, id=name if name.isidentifier() else None)
                behind = [c for n, c in self.charts.items() if order.get(n, -1) > order[name]]
                first = min(behind, key=lambda c: order[c.name or ""], default=None)
                self.mount(chart, before=first)
        for name, chart in self.charts.items():
            chart.display = name in names
            chart.styles.column_span = 1
        last = self.charts[shown[-1].name]
        last.styles.column_span = columns * rows - len(shown) + 1  # no empty corner
        self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        self.styles.grid_rows = " ".join(f"{self.weight(i):.3f}fr" for i in range(rows))

    def weight(self, row: int) -> float:
        """The relative height of a row of charts."""
        return self.weights.get(row, self.wanted if row == 0 else 1.0)

    # ---- what keys and the mouse change ----

    @property
    def focused(self) -> str | None:
        """The chart with the focus."""
        return next((name for name, chart in self.charts.items() if chart.has_focus), None)

    def toggle_log(self, name: str) -> None:
        self.logarithmic = self.logarithmic ^ {name}

    def toggle_alone(self, history: History) -> None:
        """The focused chart alone (the first, without a focus), or all again."""
        self.alone = None if self.alone is not None else self.focused or self.chosen(history)[0].name

    def next_alone(self, history: History, by: int) -> None:
        """The next chart in the place of the only one."""
        names = [kind.name for kind in kinds(history)]
        now = self.alone if self.alone in names else self.chosen(history)[0].name
        self.alone = names[(names.index(now) + by) % len(names)]

    def next_columns(self) -> None:
        self.columns = {None: 1, 1: 2, 2: 3, 3: None}[self.columns]

    def taller(self, name: str | None, factor: float) -> None:
        """The row of a chart taller or shorter than the others."""
        row = self._row_of(name)
        self.weights[row] = min(max(self.weight(row) * factor, 0.2), 5.0)

    def pulled(self, chart: Chart, rows: int) -> None:
        """A chart's title line was dragged by so many cells: the boundary to the row above moves along."""
        row = self._row_of(chart.name)
        if row == 0:
            return
        unit = sum(self.weight(i) for i in range(self.styles.grid_size_rows)) / max(1, self.size.height)
        above, below = (max(0.2, self.weight(r) + sign * rows * unit) for r, sign in ((row - 1, 1), (row, -1)))
        self.weights |= {row - 1: above, row: below}

    def _row_of(self, name: str | None) -> int:
        shown = [chart.name for chart in self.children if chart.display]
        return shown.index(name) // max(1, self.styles.grid_size_columns) if name in shown else 0
