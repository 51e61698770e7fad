"""Random keys over the whole application: no traceback, no word that is cut, and it still answers at the end."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eegwatch.formats import find
from eegwatch.run.folder import CONFIG, TRAINER_LOG
from eegwatch.run.records import System
from eegwatch.tui.app import WatchApp
from eegwatch.tui.text_frame import text_of
from tests.conftest import LogWriter
from tests.tui.conftest import lock_held
from tests.tui.test_commands import say
from tests.tui.waiting import settled, until

FULL = bool(os.environ.get("EEGWATCH_FULL"))
NUMBER = 400 if FULL else 40
LOOKS = 8  # keys between two looks at the whole screen
SIZES = [(80, 24), (60, 15), (120, 36), (200, 60)]
KEYS = [
    *"mrswenNxyYzJKTRvtcpPhlgGf0o|[]<>+-=/?jkdb13579", *"mRe?", "enter", "enter", "escape", "escape", "escape", "tab", "shift+tab",
    "left", "right", "up", "down", "space", "backspace", "home", "end", "pageup", "pagedown", "ctrl+p",
]  # fmt: skip
NAMES = {"|": "vertical_line", "[": "left_square_bracket", "]": "right_square_bracket", "<": "less_than_sign",
         ">": "greater_than_sign", "+": "plus", "-": "minus", "=": "equals_sign", "/": "slash",
         "?": "question_mark"}  # fmt: skip
CUT = re.compile(r"\w…")
TEXTUALS = "Search for commands…"  # in the palette
Grow = Callable[[], None]


@pytest.fixture
def logs(
    writer: LogWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, tuple[WatchApp, Grow]]]:
    """A finished run of two with a finding, one that grows under the keys with a daemon to command, a foreign log."""
    monkeypatch.chdir(tmp_path)  # pictures are saved where the monitor was started
    writer.run(expected={"final_lr": 1e-5})
    writer.healthy(1, 300)
    writer.eval(300, 0.8)
    (writer.folder / TRAINER_LOG).write_text("".join(f"line {n}\n" for n in range(300)))
    (writer.folder / CONFIG).write_text("training: {}\n")
    live = LogWriter(tmp_path / "live" / "20261118-130000-live")
    live.run()
    live.steps([1.2e-4] * 120)
    say(live.folder.parent, "training", live.folder.name)
    other = LogWriter(writer.folder.parent / "20261118-110000-other")
    other.run()
    other.healthy(1, 20)
    other.log.close()
    theirs = tmp_path / "experiment" / "train.log"
    theirs.parent.mkdir()
    theirs.write_text("".join(f"Step {n} - Loss: {2 / n:.4f} - LR: 1.00e-03\n" for n in range(1, 200)))

    def grow() -> None:
        live.steps([1.2e-4] * 3, first=live_steps[0] + 1)
        live.add(System(time=live.time, step=live_steps[0], cpu_percent=50.0, rss_bytes=10**9))
        live_steps[0] += 3

    live_steps = [120]
    with lock_held(live.folder.parent):
        yield {
            "finished": (WatchApp(writer.folder.parent, writer.folder), lambda: None),
            "live": (WatchApp(live.folder.parent, live.folder), grow),
            "foreign": (WatchApp(theirs.parent, theirs, find(theirs)), lambda: None),
        }
    live.log.close()


@pytest.mark.parametrize("name", ["finished", "live", "foreign"])
@pytest.mark.parametrize("seed", range(12) if FULL else [2])
async def test_any_keys_in_any_order_leave_a_screen_that_answers(
    name: str, seed: int, logs: dict[str, tuple[WatchApp, Grow]]
) -> None:
    app, grow = logs[name]
    keys = random.Random(f"{name} {seed}")
    pressed: list[str] = []
    async with app.run_test(size=SIZES[0], notifications=True) as pilot:
        await app.loaded()
        for number in range(NUMBER):
            key = keys.choice(KEYS)
            pressed.append(key)
            await pilot.press(NAMES.get(key, key))
            grow()
            if number % LOOKS == LOOKS - 1:
                app._notifications.clear()
                app._refresh_notifications()
                await settled(pilot)
                text = text_of(app, *app.size)
                cut = [line for line in text.splitlines() if CUT.search(line.replace(TEXTUALS, ""))]
                assert text.strip() and not cut, f"{cut} after {pressed}"
                await pilot.resize_terminal(*keys.choice(SIZES))
        while app.screen is not app.run_screen:
            await pilot.press("escape")
            await pilot.pause()
        await pilot.press("escape", "escape", "question_mark")
        await until(pilot, lambda: type(app.screen).__name__ == "HelpScreen")
