"""`eegwatch`: the Textual application. Watches a log root or one run, and sends commands through the control file."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual.app import SystemCommand
from textual.binding import Binding
from textual.screen import Screen

from eegwatch.charts.model import ChartStyle
from eegwatch.charts.view import View
from eegwatch.diagnosis.findings import Finding
from eegwatch.run.declaration.apply import Declared
from eegwatch.run.file_events import Waker
from eegwatch.run.folder import CONFIG, TRAINER_LOG
from eegwatch.run.follow import ForeignLog
from eegwatch.run.yaml_file import without_secrets
from eegwatch.shell import SERVER_PID
from eegwatch.tui import settings
from eegwatch.tui.actions import ACTIONS, possible
from eegwatch.tui.ascii import Ascii, Harmless
from eegwatch.tui.daemon_commands import DaemonCommands
from eegwatch.tui.key_order import OrderedKeysApp
from eegwatch.tui.screens.run import RunScreen
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.status import title_of
from eegwatch.wording import UserError, plain

if TYPE_CHECKING:  # the other screens' widgets are a fifth of the start: they are imported when first opened
    from eegwatch.charts.figure import Prepared
    from eegwatch.tui.screens.runs import RunChoice

PARENT_EVERY_S = 1.0
TICK_S = 0.08  # a record is on the screen within 150 ms (p99, tests/bench/live.py)
LOAD_BUDGET_S, LOAD_PAUSE_S = 0.05, 0.001  # a long log is read in slices, keys answered between them
WAIT_S = 0.01  # for the process that reads a long log
LOAD_REDRAW_S = 0.5
SETTLE_S = 0.5
SHOWN_BYTES = 1 << 17  # of a file that is shown as text: its end
SHARE = 0.1  # of a core, that drawing may take: on a slow machine the charts follow at fewer frames than the figures
SLOW_LINK_S = (0.5, 2.0)  # between two looks of the figures, and of the charts: a few kB a second (tests/bench/link.py)
CLOCK_S = 1.0  # ages ("2 min ago") are redrawn this often


class ThemeError(UserError):
    """An unknown theme; the message lists the themes."""


# NO_COLOR: words that are red or magenta elsewhere (a fault, SYNTHETIC) stand out; their own grey would be the darkest
WHITE, BLACK = (240, 240, 240), (16, 16, 16)
LIGHT_WORDS = TerminalTheme((18, 18, 18), (224, 224, 224), [(18, 18, 18)] + [WHITE] * 7, [WHITE] * 8)
DARK_WORDS = TerminalTheme((224, 224, 224), (31, 31, 31), [(224, 224, 224)] + [BLACK] * 7, [BLACK] * 8)


class WatchApp(DaemonCommands, OrderedKeysApp[None]):
    """The monitor. `logs`: the log root; `folder`: the run, or None for always the newest."""

    TITLE = "eegwatch"
    ENABLE_COMMAND_PALETTE = True
    DEFAULT_THEME = "textual-dark"
    CSS = "Toast { width: auto; min-width: 40; max-width: 100%; }"  # a command in it stays in one row, to be copied
    BINDINGS = [Binding("ctrl+p", "command_palette", "palette", show=False, priority=True)]

    def __init__(
        self,
        logs: Path,
        folder: Path | None = None,
        foreign: ForeignLog | None = None,
        declared: tuple[Declared | None, int | None] = (None, None),
        *,
        ascii: bool = False,
        read_only: bool = False,
        theme: str | None = None,
        slow_link: bool = False,
    ) -> None:
        """`foreign`: someone else's log instead of a run of ours; `declared`: (configuration, steps an epoch).

        `ascii`: for terminals without Unicode. `read_only`: no key commands the run. `theme`: instead of the one set.
        `slow_link`: draw less often.
        """
        super().__init__()
        self.read_only = read_only
        self.settings = settings.load()
        wanted = theme or self.settings.theme
        if wanted in self.available_themes:
            self.theme = wanted
        elif theme is not None:
            raise ThemeError(f"--theme {theme}: there are {', '.join(sorted(self.available_themes))}")
        self._filters.append(Harmless())
        if ascii:
            self._filters.append(Ascii())
        if self.no_color:
            self.ansi_theme_dark, self.ansi_theme_light = LIGHT_WORDS, DARK_WORDS
        self.session = Session(logs, folder, self._alarm, foreign, declared)
        self._waker: Waker | None = None
        self._between = SLOW_LINK_S if slow_link else (0.0, 0.0)
        self._drawn_at, self._aged_at, self._drawn = 0.0, 0.0, -1
        self._figures, self._figures_at, self._spent_at, self._title = -1, 0.0, 0.0, ""
        self._loading = False
        self._finding_at = -1

    def on_mount(self) -> None:
        self.run_screen = RunScreen(self.session, self.settings, read_only=self.read_only)
        self.push_screen(self.run_screen)
        if self.session.logs.is_dir():
            self._waker = Waker(self.session.logs)
        self.set_interval(TICK_S, self._tick)
        if self.is_web:
            server = int(os.environ.get(SERVER_PID, os.getppid()))  # it may have died before this screen stood
            self.set_interval(PARENT_EVERY_S, partial(self._end_with, server))
        self.call_after_refresh(self._begin)

    def _end_with(self, server: int) -> None:
        """A screen in a browser ends with its server, however that ended.

        At once: Textual's own way out writes to the page first, and its thread waits for input that cannot come.
        """
        if os.getppid() != server:
            self._save_settings()
            os._exit(0)

    def on_unmount(self) -> None:
        if self.theme != self.DEFAULT_THEME or self.settings.theme is not None:
            self.settings.theme = self.theme
        self._save_settings()
        if self._waker is not None:
            self._waker.close()

    def _save_settings(self) -> None:
        if self.settings != settings.load():
            try:
                self.settings.save()
            except OSError as error:
                self.log(f"settings not saved: {error}")  # a home that is read-only: nothing is lost but convenience

    async def _begin(self) -> None:
        """The first frame is on the screen: read on at once."""
        self._tick()
        await self.release_keys()
        self.set_timer(SETTLE_S, self._settle)

    def _settle(self) -> None:
        gc.enable()
        gc.collect()
        gc.freeze()  # what lives now lives on: a frame's p99 falls from 31 to 2.6 ms (measured)

    def _tick(self) -> None:
        woken = True
        if self._waker is not None:
            woken = self._waker.take()
            if self.session.lively:
                self._waker.rest()
            else:
                self._waker.listen(self.session.folder)
        self.session.poll(woken)
        if self.session.busy and not self._loading:
            self._loading = True
            self._load()
        now = time.monotonic()
        if not self.run_screen.is_attached:
            return
        changed = self.session.version != self._drawn
        spent = time.thread_time() - self._spent_at  # by all of this program since the last frame
        due = min(spent / SHARE, LOAD_REDRAW_S) if self.session.loaded else LOAD_REDRAW_S
        if changed and now - self._drawn_at > max(due, self._between[1]):
            self._drawn_at, self._drawn, self._spent_at = now, self.session.version, time.thread_time()
            self.run_screen.redraw()
            self._say_title()
        elif changed and self.session.loaded and self.session.version != self._figures:
            if now - self._figures_at < self._between[0]:
                return
            self._figures, self._figures_at = self.session.version, now
            self.run_screen.show_ages()
        elif now - max(self._drawn_at, self._aged_at) > CLOCK_S:
            self._aged_at = now
            self._say_title()
            self.run_screen.show_ages()
            self.run_screen.show_output()

    def _say_title(self) -> None:
        """State and verdict as the terminal's title: tmux shows it, of panes out of sight too."""
        title = title_of(self.session)
        if title != self._title and self._driver is not None and not self.is_headless and not self.is_web:
            self._title = title
            self._driver.write(f"\x1b]2;{title}\x1b\\")
            self._driver.flush()

    def _load(self) -> None:
        """Read on in slices until the end of the log, as fast as the keyboard allows."""
        end, complete = time.monotonic() + LOAD_BUDGET_S, self.session.complete
        while self.session.busy and self.session.complete == complete and time.monotonic() < end:
            self.session.poll()
            if self.session.waiting:
                break
        self._loading = self.session.busy
        if self._loading:
            self.set_timer(WAIT_S if self.session.waiting else LOAD_PAUSE_S, self._load)
        if not self._loading or self.session.complete != complete:
            self._drawn_at = 0.0
            self._tick()

    def _alarm(self, finding: Finding) -> None:
        if self.is_running:
            self.bell()

    async def loaded(self, patience: float = 10.0) -> None:
        """Wait until the log is read to its end; for one-shot frames and tests."""
        end = time.monotonic() + patience
        while not self.session.loaded and time.monotonic() < end:
            self._tick()
            await asyncio.sleep(0)

    # ---- actions ----

    def action_picture(self) -> None:
        """Save what is on the screen as SVG, beside where the monitor was started."""
        name = f"eegwatch-{self.run_name()}-{time.strftime('%H%M%S')}.svg"
        try:
            path = self.save_screenshot(name, path=".")
        except OSError as error:
            self.notify(f"the picture could not be written: {error}", severity="error")
            return
        self.notify(f"saved {path}")

    def action_chart_picture(self) -> None:
        """Save the charts in sight, with their window and axes, as curves."""
        from eegwatch.charts import figure

        name = Path(f"eegwatch-{self.run_name()}-{time.strftime('%H%M%S')}-charts.svg")
        history = self.session.history
        chosen = self.run_screen.charts.chosen(history)
        style = self.run_screen.chart_style
        charts = figure.prepare(history, chosen, style)  # here, where the history grows: a thread would read half of it
        self.run_worker(partial(self._write_charts, name, self.run_name(), charts, style), thread=True)

    def _write_charts(self, path: Path, name: str, charts: list[Prepared], style: ChartStyle) -> None:
        """In a thread: matplotlib takes half a second to load."""
        from eegwatch.charts import figure

        try:
            figure.write(path, name, charts, style)
        except (figure.FigureError, OSError) as error:
            self.call_from_thread(self.notify, str(error), severity="error", timeout=10)
            return
        self.call_from_thread(self.notify, f"saved {path}")

    def action_runs(self) -> None:
        from eegwatch.tui.screens.run_rows import Overlays
        from eegwatch.tui.screens.runs import RunsScreen

        if self.session.foreign is not None:
            self.notify("this is a single log: the list shows the runs of a log root", severity="warning")
            return
        life = self.session.life
        live = (life.run_id if life.alive else None, life.word)
        overlays = Overlays(self.session.overlay_labels, self._toggle_overlay)
        screen = RunsScreen(
            self.session.logs, self.session.folder, live, self.settings, overlays, read_only=self.read_only
        )
        self.push_screen(screen, self._choose_run)

    def _toggle_overlay(self, folder: Path) -> str:
        if not self.session.toggle_overlay(folder):
            return "three runs are drawn over this one already: o on one of them takes it away"
        label = self.session.overlay_labels().get(folder)
        self.run_screen.redraw()
        return (
            f"{folder.name} is drawn over the run on the screen as {label}" if label else f"{folder.name} is taken away"
        )

    def _choose_run(self, choice: RunChoice | None) -> None:
        if choice is not None:
            self.session.follow_newest = False
            self.session.switch(choice.folder)
            self.run_screen.view = View()
        self.run_screen.redraw()

    def action_evidence(self) -> None:
        from eegwatch.tui.screens.evidence import EvidenceScreen

        if not self.session.diagnosis.findings:
            self.notify("nothing is wrong: there is no evidence to show")
            return
        self.push_screen(EvidenceScreen(self.session), self._look)

    def _look(self, view: View | None) -> None:
        if view is not None:
            shown = self.run_screen.view
            self.run_screen.look(replace(view, axis=shown.axis, smoothing=shown.smoothing))

    def action_next_finding(self, by: int) -> None:
        from eegwatch.tui.screens.evidence import place_of

        findings = self.session.diagnosis.findings
        if not findings:
            self.notify("nothing is wrong: there is no finding to jump to")
            return
        self._finding_at = (self._finding_at + by) % len(findings)
        finding = findings[self._finding_at]
        self._look(place_of(self.session, finding))
        self.notify(finding.headline or finding.message, title=f"finding {self._finding_at + 1} of {len(findings)}")

    def action_trainer_log(self) -> None:
        self._show_file(TRAINER_LOG, "what the trainer printed, the newest last")

    def action_config(self) -> None:
        self._show_file(CONFIG, "the configuration as run")

    def _show_file(self, name: str, title: str) -> None:
        """The end of a file of the run's folder, as text: escape sequences and markup in it mean nothing."""
        from eegwatch.tui.screens.text import TextScreen

        folder = self.session.folder
        if self.session.foreign is not None:
            self.notify("this is a single log without a run folder", severity="warning")
            return
        path = folder / name if folder is not None and folder.is_dir() else None
        try:
            data = end_of(path) if path is not None else b""
        except OSError as error:
            self.notify(f"{path}: {error.strerror}", severity="warning")
            return
        text = data.decode("utf-8", "replace")
        lines = [plain(line) for line in (without_secrets(text) if name == CONFIG else text).splitlines()]
        self.push_screen(
            TextScreen(title, Text("\n".join(lines) or "there is nothing here"), at_end=name == TRAINER_LOG)
        )

    def action_scores(self) -> None:
        from eegwatch.tui.screens.scores import scores_text
        from eegwatch.tui.screens.text import TextScreen

        self.push_screen(TextScreen("scores", scores_text(self.session)))

    def action_help(self) -> None:
        from eegwatch.tui.screens.help import HelpScreen

        able = possible(self.session, read_only=self.read_only)
        keys = [action.key for action in ACTIONS if action.command is not None and action not in able]
        self.push_screen(HelpScreen(able, keys), self._run_action)

    async def _run_action(self, action: str | None) -> None:
        """Run the action that was chosen in the help or the palette."""
        if action is not None:
            await self.run_screen.run_action(action)

    def action_events(self) -> None:
        from eegwatch.tui.screens.text import TextScreen, events_text

        self.push_screen(TextScreen("findings and events", events_text(self.session), hangs=True))

    def get_system_commands(self, screen: Screen[object]) -> Iterator[SystemCommand]:
        """Every action of the table that can work now, and the themes."""
        for action in possible(self.session, read_only=self.read_only):
            words = f"{action.words[:1].upper()}{action.words[1:]}  ({action.key})"
            yield SystemCommand(words, action.help, partial(self.run_screen.run_action, action.action))
        yield SystemCommand("Theme", "change the colours", self.action_change_theme)


def end_of(path: Path) -> bytes:
    """The last SHOWN_BYTES of a file, however long it is. Raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - SHOWN_BYTES))
        return file.read(SHOWN_BYTES)
