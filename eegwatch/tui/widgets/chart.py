"""A chart: one canvas with axes, phase bands and marks. A widget of it draws what `show` was last given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from eegwatch.canvas import BLANK, Axis, Canvas, Columns, bridged, gaps, of_bulk, reduce, smooth, ticks
from eegwatch.wording import short_rate

Floats = NDArray[np.float64]
GUTTER = 8  # cells for the y labels and the axis line
OBSERVED, EXPECTED, BAND, MARK, PAST, FIRST, SECOND, THIRD = range(8)
STYLES = ("observed", "expected", "band", "mark", "past", "first", "second", "third")
MORE = (FIRST, SECOND, THIRD)  # other runs, or what causes predict
DOTTED = 3  # the expected curve has a dot in every third column: told from the observed one without colour
SMOOTH_COLUMNS = 3.0
VALUED_OUTLIERS = 3
SAMPLED = 20_000  # values that the bulk of a noisy series is taken from


@dataclass
class Series:
    """Points sorted by x. `kind`: line, dotted, smooth, or noisy (a min-max band with a smooth line over it).

    `label` stands at its last point in sight: lines are told apart without colour. `aside`: no say in the y range.
    """

    x: NDArray[np.generic]
    y: NDArray[np.generic]
    kind: str
    colour: int
    label: str = ""
    aside: bool = False


@dataclass
class Picture:
    """What a chart shows: series over [left, right], phase bands, marks, and rules (attempts) with a label."""

    left: float = 0.0
    right: float = 1.0
    series: list[Series] = field(default_factory=list)
    bands: list[tuple[str, float, float]] = field(default_factory=list)
    marks: list[tuple[float, float, str]] = field(default_factory=list)
    rules: list[tuple[float, str]] = field(default_factory=list)
    log: bool = False
    rates: bool = False
    empty: str = "no step yet"
    cursor: float | None = None
    x_text: Callable[[float], str] = "{:,.0f}".format
    smoothing: float = SMOOTH_COLUMNS
    y_text: Callable[[float], str] | None = None


def _bulk_range(values: Floats, *, log: bool) -> tuple[float, float]:
    """The range of ordinary noise: 99.6 % of the values, and a third as much again on either side."""
    low, high = np.quantile(np.log(values) if log else values, [0.002, 0.998])
    room = (high - low) / 3
    low, high = low - room, high + room
    return (float(np.exp(low)), float(np.exp(high))) if log else (float(low), float(high))


def _extent(columns: Columns, *, log: bool) -> tuple[float, float]:
    """Least and most of what can be drawn; infinite where there is nothing."""
    least, most = (np.where(v > 0, v, np.nan) if log else v for v in (columns.least, columns.most))
    least, most = least[np.isfinite(least)], most[np.isfinite(most)]
    return (float(least.min()), float(most.max())) if len(least) and len(most) else (np.inf, -np.inf)


def limits(picture: Picture, reduced: list[Columns]) -> Axis | None:
    """The y range: all of a line, the bulk of what is noisy (one spike must not flatten the rest)."""
    lows, highs = [], []
    log = picture.log
    for series, columns in zip(picture.series, reduced, strict=True):
        if series.aside:
            continue
        low, high = _extent(columns, log=log)
        first, last = columns.edges[0], columns.edges[-1]
        if series.kind in ("noisy", "smooth") and last - first > 200:
            y = np.asarray(series.y[first : last : max(1, (last - first) // SAMPLED)], np.float64)
            y = y[np.isfinite(y) & (y > 0 if log else True)]
            if len(y):
                calm, wild = _bulk_range(y, log=log)
                low, high = max(low, calm), min(high, wild)
        if np.isfinite(low) and np.isfinite(high):
            lows.append(low)
            highs.append(high)
    if not lows:
        return None
    low, high = min(lows), max(highs)
    if log:
        return Axis(low / 1.15, high * 1.15, True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room)


class Chart(Widget):
    """Draws a Picture at any size; only rows that changed are painted again."""

    COMPONENT_CLASSES = {f"chart--{name}" for name in STYLES} | {"chart--axis", "chart--phase"}
    # Okabe and Ito's colours, told apart with any colour vision; darker ones of the same hues on a light ground
    DEFAULT_CSS = """
    Chart { height: 1fr; min-height: 4; border: round $panel; }
    Chart { border-title-color: $text; border-subtitle-color: $text-muted; }
    Chart:focus { border: round $accent; }
    Chart .chart--observed { color: #56b4e9; }
    Chart .chart--expected { color: #e69f00; }
    Chart .chart--band { color: #2b5876; }
    Chart .chart--mark { color: #f0e442; }
    Chart .chart--past { color: #8f7f9f; }
    Chart .chart--first { color: #009e73; }
    Chart .chart--second { color: #d55e00; }
    Chart .chart--third { color: #cc79a7; }
    Chart .chart--axis { color: #a0a0a0; }
    Chart .chart--phase { color: #a0a0a0; text-style: italic; }
    Chart:light .chart--axis { color: #606060; }
    Chart:light .chart--phase { color: #606060; text-style: italic; }
    Chart:light .chart--observed { color: #0060a0; }
    Chart:light .chart--expected { color: #a06000; }
    Chart:light .chart--band { color: #9cc4e4; }
    Chart:light .chart--mark { color: #806000; }
    Chart:light .chart--past { color: #8f7f9f; }
    Chart:light .chart--first { color: #007050; }
    Chart:light .chart--second { color: #b04000; }
    Chart:light .chart--third { color: #a04080; }
    """
    can_focus = True

    def __init__(self, title: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = title
        self.picture = Picture()
        self._strips: list[Strip] = []
        self._styles: dict[str, Style] = {}
        self._grabbed: float | None = None
        self._pulled: int | None = None
        self._moved = False

    def show(self, picture: Picture) -> None:
        """Draw this from now on."""
        self.picture = picture
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()
        self._draw()

    def _draw(self) -> None:
        width, height = self.content_size
        if width < GUTTER + 4 or height < 3:
            fresh = [Strip.blank(max(width, 0), self.rich_style) for _ in range(height)]
        else:
            fresh = self._plot(width, height)
        old, self._strips = self._strips, fresh
        if len(old) != len(fresh):
            self.refresh()
            return
        offset = self.content_region.offset - self.region.offset
        for y, (before, after) in enumerate(zip(old, fresh, strict=True)):
            if before != after:
                self.refresh(Region(offset.x, offset.y + y, width, 1))

    # ---- the mouse: places are shares of the plot's width, 0 … 1 ----

    @dataclass
    class Wheel(Message):
        """The wheel was turned over the plot: `closer`, about `share`."""

        share: float
        closer: bool

    @dataclass
    class Dragged(Message):
        """The plot was dragged by `share` of its width."""

        share: float

    @dataclass
    class Clicked(Message):
        """The plot was clicked at `share`."""

        share: float

    @dataclass
    class Pulled(Message):
        """The chart's title line was dragged by so many rows."""

        chart: Chart
        rows: int

    def _share(self, event: events.MouseEvent) -> float:
        plot = max(1, self.content_size.width - GUTTER)
        inner = event.x - (self.content_region.x - self.region.x) - GUTTER
        return min(max(inner / plot, 0.0), 1.0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Wheel(self._share(event), True))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Wheel(self._share(event), False))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.y == 0:
            self._pulled = event.screen_y
        else:
            self._grabbed, self._moved = self._share(event), False
        self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._pulled is not None and event.screen_y != self._pulled:
            self.post_message(self.Pulled(self, event.screen_y - self._pulled))
            self._pulled = event.screen_y
        if self._grabbed is None:
            return
        share = self._share(event)
        if abs(share - self._grabbed) > 1e-3:
            self.post_message(self.Dragged(share - self._grabbed))
            self._grabbed, self._moved = share, True

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        if self._grabbed is not None and not self._moved:
            self.post_message(self.Clicked(self._grabbed))
        self._grabbed = self._pulled = None

    def render_line(self, y: int) -> Strip:
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    # ---- composition ----

    def _plot(self, width: int, height: int) -> list[Strip]:
        p = self.picture
        axis_style, phase_style = self._style("axis"), self._style("phase")
        plot_width, plot_height = width - GUTTER, height - 1 - (1 if p.bands else 0)
        span, columns = (p.left, np.nextafter(p.right, np.inf)), plot_width * 2
        reduced = [reduce(s.x, s.y, *span, columns) for s in p.series]
        axis = limits(p, reduced)
        if axis is None or plot_height < 2:
            blank = [Strip([Segment(" " * width, axis_style)]) for _ in range(height)]
            blank[height // 2] = Strip([Segment(p.empty.center(width)[:width], axis_style)])
            return blank
        canvas = Canvas(plot_width, plot_height)
        self._paint(canvas, axis, reduced)
        labels = self._labels(axis, plot_height)
        styles, ground = [self._style(name) for name in STYLES], self._style("ground")
        strips = []
        for row, runs in enumerate(canvas.rows()):
            label, line = labels.get(row, ""), "┤" if row in labels else "│"
            segments = [Segment(f"{label:>{GUTTER - 2}} {line}"[:GUTTER], axis_style)]
            segments += [Segment(text, ground if index == BLANK else styles[index]) for text, index in runs]
            strips.append(Strip(segments, width))
        if p.bands:
            strips.append(
                Strip([Segment(" " * (GUTTER - 1) + "│", axis_style), *self._phases(plot_width, phase_style)], width)
            )
        missing = gaps(reduced[-1].mean) if reduced else []
        strips.append(Strip([Segment(self._x_axis(width, plot_width, missing), axis_style)], width))
        return strips

    def _style(self, name: str) -> Style:
        """On the chart's own ground, which a strip would lack."""
        if name not in self._styles:
            style = self.get_component_rich_style(f"chart--{name}", partial=True) if name != "ground" else Style()
            self._styles[name] = self.rich_style + style
        return self._styles[name]

    def _paint(self, canvas: Canvas, axis: Axis, reduced: list[Columns]) -> None:
        p = self.picture
        columns = canvas.width * 2
        for s, r in zip(p.series, reduced, strict=True):
            if s.kind == "noisy":
                canvas.span(r.least, r.most, axis, BAND)
                canvas.line(smooth(bridged(of_bulk(s.y, r, axis)), p.smoothing), axis, s.colour)
                self._mark_outliers(canvas, r.most, axis)
            elif s.kind == "smooth":
                canvas.line(smooth(bridged(of_bulk(s.y, r, axis)), max(p.smoothing, 1.0)), axis, s.colour)
            elif s.aside:
                values = bridged(r.mean)
                canvas.line(np.where((values >= axis.low) & (values <= axis.high), values, np.nan), axis, s.colour)
            elif s.kind == "dotted":
                canvas.line(bridged(r.mean), axis, s.colour, every=DOTTED)
            else:
                canvas.span(r.least, r.most, axis, s.colour)
                canvas.line(bridged(r.mean), axis, s.colour)
            if s.label:
                self._name_series(canvas, axis, s, r)
        for x, label in p.rules:
            if p.left < x <= p.right:
                canvas.rule(self._column(x, columns), PAST, label)
        if p.cursor is not None and p.left <= p.cursor <= p.right:
            canvas.rule(self._column(p.cursor, columns), MARK)
        for x, y, glyph in p.marks:
            if p.left <= x <= p.right:
                canvas.mark(self._column(x, columns), float(np.clip(axis.unit(np.array([y]))[0], 0, 1)), glyph, MARK)

    def _column(self, x: float, columns: int) -> int:
        p = self.picture
        return int((x - p.left) / max(p.right - p.left, 1e-12) * (columns - 1))

    def _name_series(self, canvas: Canvas, axis: Axis, series: Series, reduced: Columns) -> None:
        """The label at its last point in sight."""
        with np.errstate(invalid="ignore"):
            unit = axis.unit(reduced.mean)
        seen = np.flatnonzero(np.isfinite(unit) & (unit >= 0) & (unit <= 1))
        if len(seen):
            for i, character in enumerate(reversed(series.label)):
                canvas.mark(int(seen[-1]) - 2 * i, float(unit[seen[-1]]), character, series.colour)

    def _mark_outliers(self, canvas: Canvas, most: Floats, axis: Axis) -> None:
        """What lies above the axis is marked at its top; the highest few with their values."""
        outside = np.flatnonzero(most > axis.high)
        for column in outside:
            canvas.mark(int(column), 1.0, "▲", MARK)
        for column in outside[np.argsort(most[outside])][-VALUED_OUTLIERS:]:
            for i, character in enumerate(f"{most[column]:.3g}"):
                canvas.mark(int(column) + 2 * (i + 1), 1.0, character, MARK)

    def _labels(self, axis: Axis, height: int) -> dict[int, str]:
        labels: dict[int, str] = {}
        for value in ticks(axis, max(2, height // 2)):
            row = round((1 - float(axis.unit(np.array([value]))[0])) * (height - 1))
            if 0 <= row < height:
                labels.setdefault(row, self._y_text(value))
        return labels

    def _y_text(self, value: float) -> str:
        p = self.picture
        if p.y_text is not None:
            return p.y_text(value)
        return short_rate(value) if p.rates else f"{value:.3g}"

    def _x_axis(self, width: int, plot_width: int, missing: list[tuple[int, int]]) -> str:
        """The axis line with step numbers set into it, left to right without overlap; ╳ where records are missing."""
        p = self.picture
        line = [" "] * (GUTTER - 1) + ["└"] + ["─"] * plot_width
        for first, last in missing:
            line[GUTTER + first // 2 : GUTTER + -(-last // 2)] = ["╳"] * (-(-last // 2) - first // 2)
        end = 0
        for value in ticks(Axis(p.left, p.right), max(2, plot_width // 12)):
            at = GUTTER + round((value - p.left) / max(p.right - p.left, 1e-12) * (plot_width - 1))
            text = p.x_text(value)
            begin = min(max(at - len(text) // 2, GUTTER), width - len(text))
            if begin > end:
                line[begin : begin + len(text)] = text
                end = begin + len(text)
        return "".join(line[:width])

    def _phases(self, width: int, style: Style) -> list[Segment]:
        p = self.picture
        cells = [" "] * width
        for name, begin, end in p.bands:
            a = max(0, round((begin - p.left) / max(p.right - p.left, 1e-12) * width))
            b = min(width, round((end - p.left) / max(p.right - p.left, 1e-12) * width))
            if b <= a:
                continue
            if a > 0:
                cells[a] = "│"
            room = b - a - 1
            if room >= 4:
                text = name if len(name) <= room else name[: room - 1] + "…"
                start = a + 1 + (room - len(text)) // 2
                cells[start : start + len(text)] = text
        return [Segment("".join(cells[:width]), style)]
