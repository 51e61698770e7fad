"""A chart on the screen: draws the data it was last given, and reports what the mouse does over it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from eegwatch.charts.model import STYLES, ChartData
from eegwatch.charts.plot import GROUND, GUTTER, plot

TITLE_FRAME = 6  # cells of a title line that are not the title's: corners, and a dash and a blank at either end


class Chart(Widget):
    """Draws ChartData at any size; only rows that changed are painted again."""

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

    def __init__(self, title: str = "", *, name: str | None = None, id: str | None = None) -> None:
        super().__init__(name=name, id=id)
        self.border_title = title
        self.data = ChartData()
        self._strips: list[Strip] = []
        self._styles: dict[str, Style] = {}
        self._grabbed: float | None = None
        self._pulled: int | None = None
        self._moved = False

    def show(self, data: ChartData) -> None:
        """Draw this from now on."""
        self.data = data
        self._draw()

    @property
    def title_width(self) -> int:
        """Cells that a title may take; 0 before the chart has its size."""
        return max(0, self.size.width - TITLE_FRAME)

    def on_resize(self) -> None:
        self._draw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()
        self._draw()

    def _draw(self) -> None:
        width, height = self.content_size
        fresh = [
            Strip([Segment(text, self._style(style)) for text, style in row], width)
            for row in plot(self.data, width, height)
        ]
        old, self._strips = self._strips, fresh
        if len(old) != len(fresh):
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(old, fresh, strict=True)):
            if before != after:
                self.refresh(Region(0, y, width, 1))  # counted from within the border

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

    def _style(self, name: str) -> Style:
        """On the chart's own ground, which a strip would lack."""
        if name not in self._styles:
            style = self.get_component_rich_style(f"chart--{name}", partial=True) if name != GROUND else Style()
            self._styles[name] = self.rich_style + style
        return self._styles[name]
