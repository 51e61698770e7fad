"""Every key of every screen does something that can be seen; a binding without an entry here fails the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from textual.binding import Binding

from eegwatch.charts.view import View
from eegwatch.run.folder import CONFIG, TRAINER_LOG
from eegwatch.tui.app import WatchApp
from eegwatch.tui.screens.dialogs import Confirm
from eegwatch.tui.screens.evidence import EvidenceScreen
from eegwatch.tui.screens.help import HelpScreen
from eegwatch.tui.screens.resume import ResumeDialog
from eegwatch.tui.screens.run import RunScreen
from eegwatch.tui.screens.runs import RunsScreen
from eegwatch.tui.screens.text import TextScreen
from tests.conftest import LogWriter
from tests.tui.conftest import lock_held
from tests.tui.waiting import settled, until

Seen = Callable[[Any], Any]


def top(app: Any) -> Any:
    """The kind of screen that is on top."""
    return type(app.screen)


def view(app: Any) -> Any:
    return app.run_screen.view


def said(app: Any) -> Any:
    return [note.message for note in app._notifications]


def noting(app: Any) -> Any:
    return app.screen.note.has_class("shown")


def charts(app: Any) -> Any:
    grid = app.run_screen.charts
    shown = [chart.id for chart in grid.children if chart.display]
    return grid.logarithmic, grid.alone, grid.columns, dict(grid.weights), shown


def focus(app: Any) -> Any:
    return app.focused.id if app.focused else None


def side(app: Any) -> Any:
    return app.settings.side_width


def output(app: Any) -> Any:
    return app.run_screen.output.display


def filtering(app: Any) -> Any:
    return app.run_screen.filter.has_class("shown")


def files(app: Any) -> Any:
    return sorted(path.name for path in Path(".").glob("eegwatch-*.svg"))


def ended(app: Any) -> Any:
    return app._exit


def finding(app: Any) -> Any:
    return app.screen.at


def evidence(app: Any) -> Any:
    return app.screen.logarithmic, app.screen.factor


def row(app: Any) -> Any:
    return app.screen.table.cursor_row


def pinned(app: Any) -> Any:
    return list(app.settings.pinned)


def overlaid(app: Any) -> Any:
    return app.session.overlay_labels()


def order(app: Any) -> Any:
    return app.screen.rows.sort_by


def line(app: Any) -> Any:
    return app.screen.options.highlighted


def searching(app: Any) -> Any:
    return app.screen.pattern.has_class("shown")


def found(app: Any) -> Any:
    return app.screen.at


def scrolled(app: Any) -> Any:
    return app.screen.log_view.scroll_target_y


def asked(app: Any) -> Any:
    """What the filter of the list of runs looks like."""
    return app.screen.filter.has_class("shown")


def choice(app: Any) -> Any:
    return app.screen.judged.then


class Key(NamedTuple):
    """`seen` changes when the key is pressed after the keys `first`."""

    seen: Seen
    first: tuple[str, ...] = ()


KEYS: dict[type[Any], dict[str, Key]] = {
    RunScreen: {
        "m": Key(said), "r": Key(said), "s": Key(said), "w": Key(said),  # without a daemon: what to type instead
        "y": Key(charts), "Y": Key(charts), "e": Key(top), "enter": Key(top), "n": Key(view), "N": Key(view),
        "plus": Key(view), "equals_sign": Key(view), "minus": Key(view, ("plus",)), "0": Key(view, ("plus",)),
        "f": Key(view), "h": Key(view, ("plus", "plus", "plus", "plus", "G")), "shift+left": Key(view, ("plus", "plus", "plus", "plus", "G")),
        "l": Key(view, ("plus", "g")), "shift+right": Key(view, ("plus", "g")),
        "home": Key(view, ("plus", "plus", "plus", "l")), "g": Key(view, ("plus", "plus", "plus", "l")),
        "end": Key(view, ("plus", "plus", "plus", "plus", "plus", "g")),
        "G": Key(view, ("plus", "plus", "plus", "plus", "plus", "g")),
        "left": Key(view), "right": Key(view, ("left", "left", "left")), "escape": Key(view, ("left",)),
        "x": Key(view), "left_square_bracket": Key(view), "right_square_bracket": Key(view),
        "slash": Key(filtering), "tab": Key(focus), "shift+tab": Key(focus, ("tab", "tab")), "z": Key(charts),
        "vertical_line": Key(charts), "J": Key(charts, ("tab",)), "ctrl+down": Key(charts, ("tab",)),
        "K": Key(charts, ("tab",)), "ctrl+up": Key(charts, ("tab",)), "less_than_sign": Key(side),
        "greater_than_sign": Key(side), "T": Key(output), "R": Key(top), "v": Key(top), "t": Key(top), "c": Key(top), "p": Key(files),
        "P": Key(files), "question_mark": Key(top), "q": Key(ended), "ctrl+p": Key(top),
    },
    EvidenceScreen: {
        "escape": Key(top), "q": Key(top), "enter": Key(top), "n": Key(finding), "down": Key(finding),
        "j": Key(finding), "N": Key(finding), "up": Key(finding), "k": Key(finding), "y": Key(evidence),
        "plus": Key(evidence), "equals_sign": Key(evidence), "minus": Key(evidence), "g": Key(view),
    },
    RunsScreen: {
        "escape": Key(top), "R": Key(top), "slash": Key(asked), "o": Key(overlaid, ("j",)), "space": Key(pinned),
        "s": Key(order), "n": Key(noting), "b": Key(said), "e": Key(said),
        "d": Key(said), "j": Key(row), "k": Key(row, ("j",)),
    },
    TextScreen: {
        "escape": Key(top), "q": Key(top), "e": Key(top), "t": Key(top), "c": Key(top), "v": Key(top),
        "slash": Key(searching), "n": Key(found, ("slash", *"line 1", "enter")),
        "N": Key(found, ("slash", *"line 1", "enter", "n")), "g": Key(scrolled), "G": Key(scrolled, ("g",)),
        "j": Key(scrolled, ("g",)), "k": Key(scrolled, ("g", "j", "j")),
    },
    HelpScreen: {
        "escape": Key(top), "q": Key(top), "question_mark": Key(top), "slash": Key(searching), "j": Key(line),
        "k": Key(line, ("j",)),
    },
    Confirm: {"enter": Key(top), "escape": Key(top)},
    ResumeDialog: {"enter": Key(top), "escape": Key(top), "up": Key(choice), "down": Key(choice)},
}  # fmt: skip
OPENED_BY: dict[type[Any], str] = {
    EvidenceScreen: "enter", RunsScreen: "R", TextScreen: "t", HelpScreen: "question_mark", Confirm: "s", ResumeDialog: "m",
}  # fmt: skip


def bound(screen: type[Any]) -> set[str]:
    """The keys of a screen's bindings."""
    own = [*screen.BINDINGS, *(WatchApp.BINDINGS if screen is RunScreen else [])]
    words = [b.key if isinstance(b, Binding) else b[0] for b in own]
    return {key for word in words for key in word.split(",")}


@pytest.mark.parametrize("screen", KEYS)
def test_every_binding_is_tried(screen: type[Any]) -> None:
    assert set(KEYS[screen]) == bound(screen)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Any]:
    """The monitor on a run with two findings."""
    app = WatchApp(folder.parent, folder)
    async with app.run_test(size=(160, 48), notifications=True) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await settled(pilot)
        yield pilot


async def does_something(pilot: Any, screen: type[Any], key: str) -> bool:
    """Whether a key changes what can be seen, on this screen opened anew."""
    app = pilot.app
    while app.screen is not app.run_screen:
        app.pop_screen()
        await pilot.pause()
    app.run_screen.view = View()
    app.run_screen.redraw()
    if screen is not RunScreen:
        await pilot.press(OPENED_BY[screen])
        await until(pilot, lambda: isinstance(app.screen, screen))
    await settled(pilot)
    if KEYS[screen][key].first:
        for word in KEYS[screen][key].first:
            await pilot.press(word)
            await pilot.pause()
        await settled(pilot)
    seen = KEYS[screen][key].seen
    before = seen(app)
    await pilot.press(key)
    if app.is_running:
        await settled(pilot)
    return bool(seen(app) != before)


@pytest.mark.parametrize("screen", KEYS)
async def test_each_key_does_something_that_can_be_seen(
    screen: type[Any], writer: LogWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One monitor for the keys of a screen, and another where a key ended it or an earlier key stands in the way."""
    monkeypatch.chdir(tmp_path)  # pictures are saved where the monitor was started
    folder = writer.folder
    (folder / TRAINER_LOG).write_text("".join(f"line {n}\n" for n in range(300)))
    (folder / CONFIG).write_text("training: {}\n")
    writer.run(expected={"final_lr": 1e-5})  # a finding: the schedule ends elsewhere
    writer.healthy(1, 300)
    writer.steps([2e-3] * 50, first=301)  # and another
    other = LogWriter(folder.parent / "20261118-110000-other")
    other.run()
    other.healthy(1, 20)
    other.log.close()
    waiting = list(KEYS[screen])
    with lock_held(folder.parent) if screen in (Confirm, ResumeDialog) else nullcontext():
        while waiting:
            async with opened(folder) as pilot:
                for tried, key in enumerate(list(waiting)):
                    if await does_something(pilot, screen, key):
                        waiting.remove(key)
                    else:
                        assert tried, f"{key} does nothing on a {screen.__name__} that was just opened"
                        break
                    if not pilot.app.is_running:
                        break
