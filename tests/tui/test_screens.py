"""Every screen, compared as a picture, in the sizes that have a layout of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from eegwatch.tui.app import WatchApp
from tests.conftest import LogWriter
from tests.tui.conftest import lock_held
from tests.tui.test_commands import say
from tests.tui.waiting import settled, until

DARK, LIGHT = "textual-dark", "textual-light"
SMALL, USUAL, LARGE = (80, 24), (120, 30), (200, 60)
Pressed = Callable[[Any], Awaitable[None]]


def pressing(*keys: str) -> Pressed:
    """What opens a screen: keys, and an input whose cursor does not blink."""

    async def press(pilot: Any) -> None:
        await pilot.app.loaded()
        pilot.app.run_screen.redraw()
        await pilot.pause()
        for key in keys:
            await pilot.press(*([key] if len(key) == 1 or key in KEYS else key))
            await pilot.pause()
        for entry in pilot.app.screen.query("Input"):
            entry.cursor_blink = False
        await settled(pilot)

    return press


KEYS = {"question_mark", "enter", "left", "slash", "escape"}
SCREENS: dict[str, tuple[str, Pressed]] = {
    "healthy": ("healthy", pressing()),
    "frozen": ("frozen", pressing()),
    "cursor": ("healthy", pressing("left", "left")),
    "pattern": ("healthy", pressing("slash", "auroc|resid")),
    "resume": ("frozen", pressing()),
    "help": ("frozen", pressing("question_mark")),
    "events": ("frozen", pressing("e")),
    "evidence": ("frozen", pressing("enter")),
    "runs": ("healthy", pressing("R")),
    "output": ("frozen", pressing("t")),
}


# the run screen in each of its layouts and on a light ground; what lies over it where it is cramped, and where it is not
CASES = [(name, size, DARK) for name in ("healthy", "frozen") for size in (SMALL, USUAL, LARGE)]
CASES += [(name, USUAL, LIGHT) for name in ("healthy", "frozen", "resume")]
CASES += [(name, size, DARK) for name in SCREENS if name not in ("healthy", "frozen") for size in (SMALL, USUAL)]


@pytest.mark.parametrize("name, size, theme", CASES, ids=[f"{n}-{w}x{h}-{t}" for n, (w, h), t in CASES])
def test_a_screen(
    name: str,
    size: tuple[int, int],
    theme: str,
    request: pytest.FixtureRequest,
    snap_compare: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixture, press = SCREENS[name]
    folder: Path = request.getfixturevalue(fixture)
    monkeypatch.chdir(folder.parents[1])  # paths on the screen are relative: the same for everybody
    (folder / "trainer.log").write_text("".join(f"epoch {n}: loss {0.6 - n / 100:.3f}\n" for n in range(40)))
    logs = Path("logs")

    async def open_it(pilot: Any) -> None:
        if name == "resume":
            from eegwatch.tui.screens.resume import ResumeDialog

            await pilot.app.loaded()
            await until(pilot, lambda: pilot.app.session.life.alive)  # its first look at the daemon may come later
            pilot.app.push_screen(ResumeDialog(pilot.app.session))
            await pilot.pause()
            await pilot.press(*"3e-4")
            pilot.app.screen.query_one("#lr").cursor_blink = False
            await settled(pilot)
        else:
            await press(pilot)

    app = WatchApp(logs, logs / folder.name, theme=theme)
    if name == "resume":  # with a daemon that could begin a new run
        say(folder.parent, "training", folder.name)
    with lock_held(folder.parent) if name == "resume" else nullcontext():
        assert snap_compare(app, terminal_size=size, run_before=open_it)


@pytest.mark.parametrize("question", ["stop", "restart"])
def test_a_question_before_a_command(
    question: str, frozen: Path, snap_compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(frozen.parents[1])

    async def ask(pilot: Any) -> None:
        await pilot.app.loaded()
        await pilot.press({"stop": "s", "restart": "r"}[question])
        await settled(pilot)

    with lock_held(frozen.parent):
        app = WatchApp(Path("logs"), Path("logs") / frozen.name)
        assert snap_compare(app, terminal_size=(100, 30), run_before=ask)


def test_an_overlay_and_attempts(writer: LogWriter, snap_compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.run()
    writer.healthy(1, 900)
    writer.run(attempt=2, step=600)
    writer.healthy(601, 1500)
    other = LogWriter(writer.folder.parent / "20261118-110000-other")
    other.time = writer.time
    other.run()
    other.steps([5e-4] * 1800, losses=[0.5] * 1800)
    other.log.close()
    monkeypatch.chdir(writer.folder.parents[1])

    async def lay(pilot: Any) -> None:
        await pilot.app.loaded()
        pilot.app.session.toggle_overlay(Path("logs") / other.folder.name)
        while pilot.app.session.busy:
            pilot.app.session.poll()
        pilot.app.run_screen.redraw()
        await settled(pilot)

    app = WatchApp(Path("logs"), Path("logs") / writer.folder.name)
    assert snap_compare(app, terminal_size=(120, 40), run_before=lay)
