"""While a run lives: how long a record waits until it is on the screen, a key until it is answered, what a frame costs.

    python -m tests.bench.live [--records 58285] [--pace 500] [--seconds 20]

In a real tmux, 200×50. A record is on the screen when the status line names its step or a later one; capturing the pane
takes some milliseconds, which are counted against us. A key is `y`: until the LR chart's title says the other axis. A
frame is every chart drawn anew from the history, to the last byte for the terminal; beside it an empty Textual app of the
same size that repaints all of its cells.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from eegwatch.tui.app import WatchApp
from tests.bench.beside_leet import OURS_WRITER
from tests.bench.open import make_log, tmux

FRAMES = 100
os.environ["TEXTUAL_FPS"] = "1000"  # for the frames alone: none waits for the next sixtieth of a second


def waits(run: Path, first: int, pace: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(milliseconds each record waited, milliseconds each key waited)."""
    tmux("kill-server")
    tmux("new-session", "-d", "-x", "200", "-y", "50", sys.executable, "-m", "eegwatch.cli", str(run))
    time.sleep(8)
    writer = subprocess.Popen([sys.executable, "-c", OURS_WRITER, str(run / "run.jsonl"), str(first), str(pace)])
    time.sleep(2)
    seen: list[tuple[float, int]] = []
    end = time.time() + seconds
    while time.time() < end:
        screen = tmux("capture-pane", "-p")
        now, found = time.time(), re.search(r"step ([\d,]+) /", screen)
        if found:
            step = int(found[1].replace(",", ""))
            if not seen or step > seen[-1][1]:
                seen.append((now, step))
        time.sleep(0.002)
    keys = []
    for n in range(40):
        wanted = "(linear)" if n % 2 == 0 else "(log)"
        began = time.time()
        tmux("send-keys", "y")
        while f"learning rate {wanted}" not in tmux("capture-pane", "-p"):
            time.sleep(0.002)
        keys.append((time.time() - began) * 1e3)
        time.sleep(0.1 + 0.013 * (n % 7))
    writer.kill()
    writer.wait()
    tmux("kill-server")
    written = dict(
        re.findall(rb'"time":([\d.]+),"step":(\d+)', (run / "run.jsonl").read_bytes()[-40_000_000:])[::-1]
    )  # time by step, the wrong way round: turned below
    when = {int(step): float(at) for at, step in written.items()}
    at, steps = np.array([t for t, _ in seen]), np.array([s for _, s in seen])
    shown = np.array([s for s in range(steps[0] + 1, steps[-1] + 1) if s in when])
    record = (at[np.searchsorted(steps, shown)] - np.array([when[s] for s in shown])) * 1e3
    return record, np.array(keys)


class Timed:
    """Says when a frame has gone to the terminal."""

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(screen, renderable)  # type: ignore[misc]
        if renderable is not None:
            self.displayed_at = time.perf_counter()
            self.displayed.set()

    async def frames(self, draw: Callable[[int], None]) -> float:
        """Milliseconds from `draw` to the frame's last byte, median."""
        spent = []
        for n in range(FRAMES):
            self.displayed = asyncio.Event()
            began = time.perf_counter()
            draw(n)
            await self.displayed.wait()
            await asyncio.sleep(0.03)  # whatever follows, a second small update for instance, belongs to this frame
            spent.append((self.displayed_at - began) * 1e3)
        return float(np.median(spent))


class Empty(Timed, App[None]):
    """Nothing but cells."""

    def compose(self) -> ComposeResult:
        yield Static()


class Ours(Timed, WatchApp):
    """The monitor."""


async def a_frame(run: Path) -> tuple[float, float, float]:
    """Milliseconds: the empty app, one chart alone, every chart that fits."""
    empty = Empty()
    empty.displayed = asyncio.Event()
    async with empty.run_test(size=(200, 50)) as pilot:
        await pilot.pause(1)
        floor = await empty.frames(lambda _: empty.screen.refresh() and None)
    app = Ours(run.parent, run)
    app.displayed = asyncio.Event()
    async with app.run_test(size=(200, 50)) as pilot:
        await app.loaded(60)
        await pilot.pause(1)

        def draw(n: int) -> None:
            app.run_screen.charts.logarithmic = frozenset(("lr", "loss") if n % 2 else ())  # every row changes
            app.run_screen.redraw()

        app.run_screen.charts.alone = "lr"
        one = await app.frames(draw)
        app.run_screen.charts.alone = None
        return floor, one, await app.frames(draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=58_285)
    parser.add_argument("--pace", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = make_log(Path(scratch), given.records, 2 * given.records)
        record, keys = waits(run, given.records + 1, given.pace, given.seconds)
        for what, ms in (
            (f"a record, {given.pace:g} a second, on the screen after", record),
            ("a key answered after", keys),
        ):
            p50, p99 = np.quantile(ms, [0.5, 0.99])
            print(f"{what} p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {ms.max():.0f} ms ({len(ms):,})", flush=True)
        floor, one, every = asyncio.run(a_frame(run))
        for what, ours in (("one chart", one), ("every chart that fits", every)):
            print(f"a frame, {what}: {ours:.1f} ms, an empty repaint {floor:.1f} ms: {ours / floor:.1f} times")


if __name__ == "__main__":
    main()
