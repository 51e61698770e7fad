"""The run screen: is something wrong, how bad, what to press, what the curve looks like, how far we are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer

from eegwatch.schedule import rate_at
from eegwatch.tui.pictures import loss_picture, lr_picture, schedule_of
from eegwatch.tui.session import Session
from eegwatch.tui.view import View, on_axis, readout
from eegwatch.tui.widgets.chart import Chart
from eegwatch.tui.widgets.panels import Checklist, Events, Figures, System, Ticks, Verdict
from eegwatch.tui.widgets.status import StatusLine

WIDE, TALL = 110, 30  # from here on the side panels have room


class RunScreen(Screen[None]):
    """Draws a Session; `redraw` is called whenever it changed."""

    BINDINGS = [
        Binding("m", "app.resume", "resume with LR"),
        Binding("r", "app.restart", "restart"),
        Binding("s", "app.stop", "stop"),
        Binding("y", "toggle_lr_axis", "log/linear LR"),
        Binding("Y", "toggle_loss_axis", "log/linear loss", show=False),
        Binding("e", "app.events", "events"),
        Binding(
            "plus,equals_sign", "zoom(2.0)", "zoom in, about the cursor or the newest step", show=False, key_display="+"
        ),
        Binding("minus", "zoom(0.5)", "zoom out (the wheel zooms too)", show=False, key_display="-"),
        Binding("0", "whole", "the whole run", show=False),
        Binding("f", "follow", "follow the newest steps", show=False),
        Binding("h,shift+left", "pan(-0.2)", "earlier (or drag)", show=False, key_display="h ⇧←"),
        Binding("l,shift+right", "pan(0.2)", "later", show=False, key_display="l ⇧→"),
        Binding("left", "cursor(-1)", "cursor: read out a step (or click)", show=False, key_display="←"),
        Binding("right", "cursor(1)", "cursor to the right", show=False, key_display="→"),
        Binding("escape", "no_cursor", "hide the cursor", show=False),
        Binding("x", "axis", "x axis: steps, epochs or hours", show=False),
        Binding("left_square_bracket", "smooth(-1)", "smooth the loss less", show=False, key_display="["),
        Binding("right_square_bracket", "smooth(1)", "smooth the loss more", show=False, key_display="]"),
        Binding("R", "app.runs", "runs: list, switch, overlay, compare", show=False),
        Binding("t", "app.trainer_log", "what the trainer printed", show=False),
        Binding("c", "app.config", "the configuration as run", show=False),
        Binding("p", "app.picture", "save the screen as SVG", show=False),
        Binding("question_mark", "app.help", "help", key_display="?"),
        Binding("q", "app.quit", "quit"),
    ]
    DEFAULT_CSS = """
    RunScreen { layout: vertical; }
    RunScreen #body { height: 1fr; }
    RunScreen #charts { width: 1fr; height: 1fr; }
    RunScreen.compact Chart { border: none; border-top: solid $panel; }
    RunScreen #side { width: 44; height: 1fr; scrollbar-size-vertical: 1; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.lr_log, self.loss_log = True, False
        self.view = View()
        self.status, self.verdict, self.ticks, self.events = StatusLine(), Verdict(), Ticks(), Events()
        self.checklist, self.figures, self.system = Checklist(), Figures(), System()
        self.side = VerticalScroll(self.checklist, self.figures, self.system, id="side", can_focus=False)
        self.lr, self.loss = Chart(id="lr"), Chart(id="loss")

    def compose(self) -> ComposeResult:
        yield self.status
        yield self.verdict
        yield Horizontal(Vertical(self.lr, self.loss, id="charts"), self.side, id="body")
        yield self.ticks
        yield self.events
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.redraw()

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """Show the session as it is now, in the layout that the size asks for."""
        session, size = self.session, self.app.size
        roomy = size.width >= WIDE and size.height >= TALL
        self.set_class(not roomy, "compact")
        self.side.display = roomy
        self.ticks.display = not roomy
        self.events.styles.height = 5 if roomy else 2 if size.height >= 22 else 1
        self.loss.display = size.height >= 18
        self.verdict.show(session, compact=not roomy)
        self.status.show(session)
        self.events.show(session)
        for panel in (self.checklist, self.figures, self.system) if roomy else (self.ticks,):
            panel.show(session)
        self._draw_charts()

    def show_ages(self) -> None:
        """Only what the passing of time changes: "2 min ago"."""
        self.status.show(self.session)

    def _draw_charts(self) -> None:
        history = self.session.picture_of
        axis = {True: "log", False: "linear"}
        view = self.view
        part = "" if view.width is None else "  following" if view.follow else "  zoomed"
        self.lr.border_title = f"learning rate ({axis[self.lr_log]})   ━ observed  ┄ expected{part}"
        self.loss.border_title = f"loss ({axis[self.loss_log]})   ░ every step  ━ smoothed  ◆ validation"
        if self.session.overlay is not None and self.session.overlaid is not None:
            self.lr.border_title += f"   ─ {self.session.overlaid.name}"
        if view.cursor is not None:
            self.lr.border_title = self._readout()
        self.lr.show(lr_picture(history, log=self.lr_log, view=view, other=self.session.overlay))
        self.loss.show(loss_picture(history, log=self.loss_log, view=view, other=self.session.overlay))

    def _readout(self) -> str:
        history, cursor = self.session.history, self.view.cursor
        assert cursor is not None
        schedule, run = schedule_of(history.run), history.run
        expected = float(rate_at(schedule, cursor, run.steps_per_epoch)) if schedule is not None and run else None
        return readout(history, cursor, expected)

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

    def action_cursor(self, columns: int) -> None:
        self.look(self.view.stepped(self.session.history, columns))

    def action_no_cursor(self) -> None:
        self.look(replace(self.view, cursor=None))

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

    def action_toggle_lr_axis(self) -> None:
        self.lr_log = not self.lr_log
        self._draw_charts()

    def action_toggle_loss_axis(self) -> None:
        self.loss_log = not self.loss_log
        self._draw_charts()
