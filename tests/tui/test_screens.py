"""Whole screens, compared as pictures at 80 x 24 and 160 x 48."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eegwatch.tui.app import WatchApp
from eegwatch.tui.screens.dialogs import ResumeDialog

SIZES = [(80, 24), (160, 48)]


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("run", ["healthy", "frozen"])
def test_the_run_screen(run: str, size: tuple[int, int], request: pytest.FixtureRequest, snap_compare: Any) -> None:
    folder: Path = request.getfixturevalue(run)

    async def settle(pilot: Any) -> None:
        await pilot.app.loaded()
        pilot.app.run_screen.redraw()
        await pilot.pause()

    assert snap_compare(WatchApp(folder.parent, folder), terminal_size=size, run_before=settle)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_resume_dialog_shows_the_curve_that_you_will_get(
    frozen: Path, size: tuple[int, int], snap_compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(frozen.parents[1])  # the shell command in the dialog names the log root
    logs = Path("logs")

    async def open_it(pilot: Any) -> None:
        await pilot.app.loaded()
        pilot.app.push_screen(ResumeDialog(pilot.app.session))
        await pilot.pause()
        await pilot.press(*"3e-4")
        pilot.app.screen.query_one("#lr").cursor_blink = False
        await pilot.pause()

    assert snap_compare(WatchApp(logs, logs / frozen.name), terminal_size=size, run_before=open_it)


@pytest.mark.parametrize("key", ["question_mark", "e"])
def test_help_and_events(frozen: Path, key: str, snap_compare: Any) -> None:
    async def open_it(pilot: Any) -> None:
        await pilot.app.loaded()
        await pilot.press(key)
        await pilot.pause()

    assert snap_compare(WatchApp(frozen.parent, frozen), terminal_size=(100, 40), run_before=open_it)
