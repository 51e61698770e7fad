"""The README's pictures of the screen, from real runs: `python -m tests.bench.pictures docs/pictures`.

Trains configs/incident.yaml with a real daemon, faster than it is shown, and takes the screen while it trains: the verdict,
the evidence, the resume dialog; and the same run after `m`, 3e-4, once more on a large screen.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import yaml

from eegwatch.tui.app import WatchApp
from tests.e2e.processes import Daemon

SIZE, LARGE = (110, 34), (200, 60)


async def shoot(app: WatchApp, folder: Path, daemon: Daemon) -> None:
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
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "incident.yaml"
        config.write_text(yaml.safe_dump(tree))
        daemon = Daemon(Path(scratch) / "logs")
        daemon.cli("start", "--config", str(config))
        try:
            asyncio.run(shoot(WatchApp(daemon.logs), folder, daemon))
        finally:
            daemon.cli("stop")


if __name__ == "__main__":
    main()
