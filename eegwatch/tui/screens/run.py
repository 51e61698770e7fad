"""The run screen: is something wrong, how bad, what to press, what the curve looks like, how far we are."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer

from eegwatch.diagnosis.findings import Finding
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

    def compose(self) -> ComposeResult:
        yield StatusLine()
        yield Verdict()
        with Horizontal(id="body"):
            with Vertical(id="charts"):
                yield Chart("learning rate", id="lr")
                yield Chart("loss", id="loss")
            with VerticalScroll(id="side", can_focus=False):
                yield Checklist()
                yield Figures()
                yield System()
        yield Ticks()
        yield Events()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.redraw()

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """Show the session as it is now, in the layout that the size asks for."""
        session, size = self.session, self.app.size
        roomy = size.width >= WIDE and size.height >= TALL
        self.query_one("#side").display = roomy
        self.query_one(Ticks).display = not roomy
        self.query_one(Events).styles.height = 5 if roomy else 2 if size.height >= 22 else 1
        self.query_one("#loss").display = size.height >= 18
        self.set_class(not roomy, "compact")
        self.query_one(Verdict).show(session, compact=not roomy)
        self.query_one(StatusLine).show(session)
        self.query_one(Events).show(session)
        if roomy:
            self.query_one(Checklist).show(session)
            self.query_one(Figures).show(session)
            self.query_one(System).show(session)
        else:
            self.query_one(Ticks).show(session)
        self._draw_charts()

    def _draw_charts(self) -> None:
        history = self.session.history
        lr, loss = self.query_one("#lr", Chart), self.query_one("#loss", Chart)
        axis = "log" if self.lr_log else "linear"
        lr.border_subtitle = f"━ observed  ┄ expected  ({axis}, y)"
        loss.border_subtitle = "░ every step  ━ smoothed  ◆ validation"
        lr.show(lr_picture(history, log=self.lr_log))
        loss.show(loss_picture(history, log=self.loss_log))

    def action_toggle_lr_axis(self) -> None:
        self.lr_log = not self.lr_log
        self._draw_charts()

    def action_toggle_loss_axis(self) -> None:
        self.loss_log = not self.loss_log
        self._draw_charts()

    def alarm(self, finding: Finding) -> None:
        self.app.bell()
