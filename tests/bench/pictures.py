"""The README's pictures of the screen, from real runs: `python -m tests.bench.pictures docs/pictures`.

Trains configs/incident.yaml with a real daemon, faster than it is shown, and takes the screen while it trains: the verdict,
the evidence, the resume dialog; and the same run after `m`, 3e-4, once more on a large screen. incident.svg moves: the
same from the first step to the rate that was read back.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import yaml

from eegwatch.tui.app import WatchApp
from tests.bench.moving import Frame, moving
from tests.e2e.processes import Daemon

SIZE, LARGE = (110, 34), (200, 60)
FRAME_STEPS = (4, 8, 16, 30, 60, 100, 140, 180, 210, 240)  # the incident's first steps, as frames
SHOWN_S = 0.5


async def film(app: WatchApp, folder: Path) -> None:
    """incident.svg: the run from its first steps, `m`, 3e-4, Enter, and what follows."""
    frames: list[Frame] = []

    async with app.run_test(size=SIZE) as pilot:

        async def until(step: int) -> None:
            while app.session.history.step_done < step:
                await asyncio.sleep(0.02)
            app.run_screen.redraw()
            await pilot.pause()

        def take(title: str, seconds: float = SHOWN_S) -> None:
            frames.append(Frame(app.export_screenshot(title="eegwatch"), seconds, title))

        for step in FRAME_STEPS:
            await until(step)
            take("the scheduler is stepped once an epoch: the learning rate is stuck")
        frames[-1].seconds = 3.0
        await pilot.press("m")
        await pilot.pause(0.5)
        take("m: resume with another learning rate", 1.5)
        await pilot.press("tab") if app.focused is None else None
        for number, key in enumerate("3e-4", 1):
            await pilot.press(key)
            await pilot.pause(0.2)
            take(f"m {'3e-4'[:number]}", 0.4)
        frames[-1].seconds = 2.0
        await pilot.press("enter")
        while app.session.sent is None or app.session.sent.answer is None or app.session.sent.answer.status != "done":
            await asyncio.sleep(0.1)
            if not frames[-1].title.startswith("Enter"):
                await pilot.pause(0.5)
                take("Enter: the run is stopped at a step boundary and resumed", 1.0)
        at = app.session.history.step_done
        for more in (5, 40, 100, 200, 350, 500):
            await until(at + more)
            take("the rate is read back, and the run goes on along the new curve", 0.7)
        frames[-1].seconds = 4.0
    (folder / "incident.svg").write_text(moving(frames))
    print(folder / "incident.svg")


async def shoot(app: WatchApp, folder: Path) -> None:
    """The pictures that stand still."""
    async with app.run_test(size=SIZE) as pilot:

        async def until(step: int) -> None:
            while app.session.history.step_done < step:
                await asyncio.sleep(0.1)
            app.run_screen.redraw()
            await pilot.pause()

        def save(name: str) -> None:
            (folder / f"{name}.svg").write_text(app.export_screenshot(title="eegwatch"))
            print(folder / f"{name}.svg")

        await until(500)
        save("frozen")
        await pilot.press("enter")
        await pilot.pause(0.5)
        save("evidence")
        await pilot.press("escape", "m")
        await pilot.pause(0.3)
        await pilot.press("tab", *"3e-4") if app.focused is None else await pilot.press(*"3e-4")
        await pilot.pause(0.3)
        save("resume")
        await pilot.press("enter")
        while app.session.sent is None or app.session.sent.answer is None or app.session.sent.answer.status != "done":
            await asyncio.sleep(0.1)
        await until(1000)
        save("resumed")
        await pilot.resize_terminal(*LARGE)
        await pilot.pause(0.5)
        await until(1100)
        save("large")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tree = yaml.safe_load(Path("configs/incident.yaml").read_text())
    tree["training"]["pace_steps_per_s"] = 60
    for take in (film, shoot):
        with tempfile.TemporaryDirectory() as scratch:
            config = Path(scratch) / "incident.yaml"
            config.write_text(yaml.safe_dump(tree))
            daemon = Daemon(Path(scratch) / "logs")
            daemon.cli("start", "--config", str(config))
            try:
                asyncio.run(take(WatchApp(daemon.logs), folder))
            finally:
                daemon.cli("stop")


if __name__ == "__main__":
    main()
