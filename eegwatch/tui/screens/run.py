"""The run screen: is something wrong, how bad, what to press, what the curve looks like, how far we are."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer

from eegwatch.tui.pictures import loss_picture, lr_picture
from eegwatch.tui.session import Session
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
        history = self.session.history
        axis = {True: "log", False: "linear"}
        self.lr.border_title = f"learning rate ({axis[self.lr_log]})   ━ observed  ┄ expected"
        self.loss.border_title = f"loss ({axis[self.loss_log]})   ░ every step  ━ smoothed  ◆ validation"
        self.lr.show(lr_picture(history, log=self.lr_log))
        self.loss.show(loss_picture(history, log=self.loss_log))

    def action_toggle_lr_axis(self) -> None:
        self.lr_log = not self.lr_log
        self._draw_charts()

    def action_toggle_loss_axis(self) -> None:
        self.loss_log = not self.loss_log
        self._draw_charts()
