"""One frame of the screen as plain text, without a terminal: for pipes, logs and `make demo` in CI."""

from __future__ import annotations

import asyncio
import io
import time

from rich.console import Console

from eegwatch.tui.app import WatchApp


def render(app: WatchApp, width: int, height: int, wait_for_steps: int = 0, patience: float = 120.0) -> str:
    """Run the app headless until its log is read (and holds so many steps), and return what is on its screen."""

    async def shoot() -> str:
        async with app.run_test(size=(width, height)) as pilot:
            await app.loaded()
            end = time.monotonic() + patience
            while app.session.history.length < wait_for_steps and time.monotonic() < end and app.session.life.alive:
                await asyncio.sleep(0.1)
            app.run_screen.redraw()
            await pilot.pause()
            app.run_screen.redraw()
            await pilot.pause()
            return text_of(app, width, height)

    return asyncio.run(shoot())


def text_of(app: WatchApp, width: int, height: int) -> str:
    """The text on the app's screen, without colours and trailing blanks."""
    console = Console(
        width=width, height=height, file=io.StringIO(), record=True, force_terminal=True, legacy_windows=False
    )
    console.print(app.screen._compositor.render_update(full=True))  # as App.export_screenshot does
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()[:height])
