"""How a test of the screen waits: for a condition, or for a screen that no longer changes; never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from eegwatch.tui.text_frame import text_of
from tests.patience import PATIENCE_S


async def until(pilot: Any, what: Callable[[], bool]) -> None:
    """Wait for a condition; raises AssertionError with what the screen says once the patience is used up."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        await pilot.pause(0.02)
        if what():
            return
    raise AssertionError(f"not within {PATIENCE_S} s; the screen says:\n{text_of(pilot.app, *pilot.app.size)}")


async def settled(pilot: Any) -> None:
    """Wait until the workers have ended and two looks at the screen, 0.1 s apart, are equal."""
    await pilot.app.workers.wait_for_complete()
    before, now = "", text_of(pilot.app, *pilot.app.size)
    while now != before:
        await pilot.pause(0.1)
        before, now = now, text_of(pilot.app, *pilot.app.size)
