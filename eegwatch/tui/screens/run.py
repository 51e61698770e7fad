"""The run screen: is something wrong, how bad, what to press, what the curve looks like, how far we are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from eegwatch.charts.deviation import expected_at
from eegwatch.charts.model import ChartStyle
from eegwatch.charts.view import View, on_axis, readout
from eegwatch.diagnosis.findings import RATE
from eegwatch.run.folder import TRAINER_LOG
from eegwatch.tui.actions import bindings
from eegwatch.tui.session import Session
from eegwatch.tui.settings import SIDE_WIDTH, Settings
from eegwatch.tui.widgets.chart import Chart
from eegwatch.tui.widgets.grid import WEIGHT_STEP, ChartGrid
from eegwatch.tui.widgets.keybar import KeyBar
from eegwatch.tui.widgets.output import Output
from eegwatch.tui.widgets.panels import Checklist, Events, ExpectedTable, System, Ticks
from eegwatch.tui.widgets.status import StatusLine
from eegwatch.tui.widgets.verdict import Verdict

WIDE, TALL = 110, 30  # from here on the side panels have room
VERY_TALL = 55  # from here on the trainer's output has
LOW = 20  # below, the verdict leaves its rows to the chart
NARROWEST_SIDE, WIDEST_SIDE, SIDE_STEP = 30, 90, 4


def has_output(session: Session) -> bool:
    """Did a trainer of this run print anything? A script of its own (RunLog) prints where it was started."""
    return session.folder is not None and (session.folder / TRAINER_LOG).exists()


class SidePanels(VerticalScroll):
    """The panels beside the charts; its left edge can be dragged."""

    @dataclass
    class Pulled(Message):
        """The edge was dragged to the right by so many cells."""

        cells: int

    def __init__(self, *children: Checklist | ExpectedTable | System) -> None:
        self.events = Events()
        self.events.add_class("aside")
        super().__init__(*children, self.events, id="side", can_focus=False)
        self._at: int | None = None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.x == 0:
            self._at = event.screen_x
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._at is not None and event.screen_x != self._at:
            self.post_message(self.Pulled(event.screen_x - self._at))
            self._at = event.screen_x

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        self._at = None


class RunScreen(Screen[None]):
    """Draws a Session; `redraw` is called whenever it changed."""

    AUTO_FOCUS = ""  # keys are the screen's until Tab or a click chooses a chart
    BINDINGS = bindings()
    DEFAULT_CSS = """
    RunScreen { layout: vertical; }
    RunScreen #body { height: 1fr; }
    RunScreen #left { width: 1fr; height: 1fr; }
    RunScreen.compact Chart { border: none; border-top: solid $panel; }
    RunScreen.compact Chart:focus { border: none; border-top: solid $accent; }
    RunScreen #side { height: 1fr; scrollbar-size-vertical: 1; }
    RunScreen Events.aside { height: 1fr; min-height: 8; border: round $panel; border-title-color: $text; }
    RunScreen #filter { height: 1; border: none; padding: 0 1; display: none; }
    RunScreen #filter.shown { display: block; }
    """

    def __init__(self, session: Session, settings: Settings | None = None, *, read_only: bool = False) -> None:
        super().__init__()
        self.session, self.settings, self.read_only = session, settings or Settings(), read_only
        self.view = View()
        self.wants_output: bool | None = None  # None: where there is room
        self.status, self.verdict, self.ticks, self.events = StatusLine(), Verdict(), Ticks(), Events()
        self.keys = KeyBar()
        self.checklist, self.figures, self.system = Checklist(), ExpectedTable(), System()
        self.side, self.charts, self.output = (
            SidePanels(self.checklist, self.figures, self.system),
            ChartGrid(),
            Output(),
        )
        self.charts.columns = self.settings.columns
        self.filter = Input(placeholder="charts: part of a name, or a regular expression", id="filter", compact=True)

    def compose(self) -> ComposeResult:
        yield self.status
        yield self.verdict
        yield Horizontal(Vertical(self.charts, self.output, id="left"), self.side, id="body")
        yield self.filter
        yield self.ticks
        yield self.events
        yield self.keys

    def on_mount(self) -> None:
        self.redraw()

    def on_unmount(self) -> None:
        self.output.close()

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """Show the session as it is now, in the layout that the size asks for."""
        session, size = self.session, self.app.size
        roomy = size.width >= WIDE and size.height >= TALL
        self.set_class(not roomy, "compact")
        self.side.display = roomy
        self.side.styles.width = self.settings.side_width
        self.ticks.display = not roomy
        output = size.height >= VERY_TALL if self.wants_output is None else self.wants_output
        self.output.display = output and session.foreign is None and (self.wants_output or has_output(session))
        aside = roomy and size.height >= VERY_TALL  # the events have room beside the charts
        self.side.events.display, self.events.display = aside, not aside
        self.events.styles.height = (5 if size.height >= 40 else 3) if roomy else 2 if size.height >= 22 else 1
        self.verdict.show(session, compact=not roomy, tight=size.height < LOW, read_only=self.read_only)
        self.status.show(session)
        (self.side.events if aside else self.events).show(session)
        self.keys.show(session, read_only=self.read_only)
        for panel in (self.checklist, self.figures, self.system) if roomy else (self.ticks,):
            panel.show(session)
        self._draw_charts()
        self.show_output()

    def show_ages(self) -> None:
        """Only what the passing of time changes: "2 min ago"."""
        self.status.show(self.session)
        for shown in (self.events, self.side.events):
            if shown.display:
                shown.show(self.session)
        self.keys.show(self.session, read_only=self.read_only)

    def show_output(self) -> None:
        if self.output.display:
            self.output.show(self.session)

    @property
    def chart_style(self) -> ChartStyle:
        """The present style of the charts."""
        session = self.session
        law = session.diagnosis.law if session.loaded else None
        return ChartStyle(self.view, self.charts.logarithmic, session.overlays, session.deviation, law)

    def _draw_charts(self) -> None:
        wrong = any(f.bad and f.family == RATE for f in self.session.diagnosis.findings)
        self.charts.draw(self.session.drawn_history, self.chart_style, wrong_rate=wrong)
        if self.view.cursor is not None and "lr" in self.charts.charts:
            self.charts.charts["lr"].border_title = self._readout()

    def _readout(self) -> str:
        history, cursor = self.session.history, self.view.cursor
        assert cursor is not None
        return readout(history, cursor, expected_at(history, cursor), self.charts.charts["lr"].title_width)

    # ---- what part ----

    def look(self, view: View) -> None:
        """Show another part of the run."""
        if view != self.view:
            self.view = view
            self._draw_charts()

    def action_zoom(self, factor: float) -> None:
        self.look(self.view.zoomed(self.session.history, factor))

    def action_whole(self) -> None:
        self.look(replace(self.view, left=0.0, width=None, follow=False))

    def action_follow(self) -> None:
        self.look(self.view.following(self.session.history))

    def action_pan(self, share: float) -> None:
        self.look(self.view.panned(self.session.history, share))

    def action_edge(self, which: str) -> None:
        self.look(self.view.at_edge(self.session.history, end=which == "end"))

    def action_cursor(self, columns: int) -> None:
        self.look(self.view.stepped(self.session.history, columns))

    def action_no_cursor(self) -> None:
        if self.filter.has_class("shown"):
            self.filter.value = ""
            self.filter.remove_class("shown")
            self.set_focus(None)
            return
        self.charts.alone = None
        self.view = replace(self.view, cursor=None)
        self._draw_charts()

    def action_axis(self) -> None:
        self.look(self.view.next_axis())

    def action_smooth(self, change: int) -> None:
        self.look(self.view.smoothed(change))

    def on_chart_wheel(self, message: Chart.Wheel) -> None:
        self.look(self.view.zoomed(self.session.history, 1.25 if message.closer else 0.8, self._at(message.share)))

    def on_chart_dragged(self, message: Chart.Dragged) -> None:
        self.look(self.view.panned(self.session.history, -message.share))

    def on_chart_clicked(self, message: Chart.Clicked) -> None:
        self.look(self.view.pointed(self.session.history, self._at(message.share)))

    def _at(self, share: float) -> float:
        """The step at a share of the charts' width, whatever the axis says."""
        history, axis = self.session.history, self.view.axis
        left, right = self.view.window(history)
        if axis != "time":
            return left + share * (right - left)
        steps = np.linspace(left, right, 512)
        hours = on_axis(history, axis, steps)
        return float(np.interp(hours[0] + share * (hours[-1] - hours[0]), hours, steps))

    # ---- which charts, how large ----

    def action_toggle_log(self, name: str = "") -> None:
        self.charts.toggle_log(name or self.charts.focused or "lr")
        self._draw_charts()

    def action_next_chart(self, by: int) -> None:
        """Tab: the next chart gets the focus; where only one is shown, the next takes its place."""
        history = self.session.drawn_history
        if len(self.charts.chosen(history)) == 1 and not self.charts.pattern:
            self.charts.next_alone(history, by)
            self._draw_charts()
        elif by > 0:
            self.focus_next(Chart)
        else:
            self.focus_previous(Chart)

    def action_alone(self) -> None:
        self.charts.toggle_alone(self.session.drawn_history)
        self._draw_charts()

    def action_columns(self) -> None:
        self.charts.next_columns()
        self.settings.columns = self.charts.columns
        self._draw_charts()

    def action_taller(self, sign: int) -> None:
        self.charts.taller(self.charts.focused, WEIGHT_STEP**sign)
        self._draw_charts()

    def on_chart_grid_resized(self) -> None:
        self._draw_charts()

    def on_chart_pulled(self, message: Chart.Pulled) -> None:
        self.charts.pulled(message.chart, message.rows)
        self._draw_charts()

    def action_side(self, sign: int) -> None:
        self._widen(sign * SIDE_STEP)

    def on_side_panels_pulled(self, message: SidePanels.Pulled) -> None:
        self._widen(-message.cells)

    def _widen(self, cells: int) -> None:
        width = (self.settings.side_width or SIDE_WIDTH) + cells
        self.settings.side_width = min(max(width, NARROWEST_SIDE), WIDEST_SIDE)
        self.redraw()

    def action_output(self) -> None:
        self.wants_output = not self.output.display
        self.redraw()

    def action_filter(self) -> None:
        self.filter.add_class("shown")
        self.filter.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self) -> None:
        self.charts.pattern, self.charts.alone = self.filter.value.strip(), None
        self._draw_charts()

    @on(Input.Submitted, "#filter")
    def _filter_kept(self) -> None:
        self.set_focus(None)
        self.filter.set_class(bool(self.filter.value), "shown")
