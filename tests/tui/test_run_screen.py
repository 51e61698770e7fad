"""The screen as people use it: what it says, what keys do, what it survives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.widgets import Input

from eegwatch.formats import find
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.records import End, Watch
from eegwatch.tui.app import WatchApp
from eegwatch.tui.screens.help import HelpScreen
from eegwatch.tui.screens.text import TextScreen
from eegwatch.tui.text_frame import text_of
from tests.conftest import ONE_CYCLE, LogWriter, unwrapped
from tests.e2e.processes import Daemon
from tests.tui.waiting import settled, until


@asynccontextmanager
async def screen(logs: Path, folder: Path | None, size: tuple[int, int] = (100, 32)) -> AsyncIterator[Any]:
    app = WatchApp(logs, folder)
    async with app.run_test(size=size, notifications=True) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await pilot.pause()
        pilot.text = lambda: text_of(app, *app.size)  # type: ignore[attr-defined]
        yield pilot


async def test_at_80_by_24_lr_loss_verdict_and_progress_are_on_the_first_screen(frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (80, 24)) as pilot:
        text = pilot.text()
    for words in (
        "LR STUCK at 1.20e-4 since step 1",
        "now 1/21 of the planned LR; if nothing is done, 1/12 on average",
        "stepped once per epoch",
        "step 150 / 2,000",
        "epoch 1 / 10",
        "learning rate",
        "loss",
        "✖ LR moves",
        "warm-up",
        "SYNTHETIC",
    ):
        assert words in text, f"{words!r} is not on the screen:\n{text}"


async def test_a_healthy_run_has_no_banner_and_every_tick(healthy: Path) -> None:
    async with screen(healthy.parent, healthy, (160, 48)) as pilot:
        text = pilot.text()
    assert "STUCK" not in text and "completed" in text
    for words in (
        "✔ LR moves every batch",
        "✔ warm-up 1.2e-4 → 3e-3",
        "✔ annealing to 3e-6",
        "final LR",
        "AUROC",
        "cpu 61 %",
    ):
        assert words in text


async def test_a_one_step_spike_is_marked_and_flattens_nothing(healthy: Path) -> None:
    async with screen(healthy.parent, healthy, (80, 24)) as pilot:
        text = pilot.text()
    loss = text[text.index("─loss") :]
    assert "▲50" in loss and "0.2┤" in loss


async def test_a_growing_log_is_followed(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 50)
    async with screen(writer.folder.parent, None) as pilot:
        assert "step 50 / 2,000" in pilot.text()
        writer.healthy(51, 120)
        await until(pilot, lambda: "step 120 / 2,000" in pilot.text())
        assert "STUCK" not in pilot.text()
        writer.steps(np.full(30, 2e-3), 121)
        await until(pilot, lambda: "LR STUCK at 2.00e-3" in pilot.text())


async def test_where_the_file_system_tells_nothing_it_is_followed_by_polling(
    writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchdog.observers import Observer

    def no_inotify(self: Any) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(Observer, "start", no_inotify)
    writer.run()
    writer.healthy(1, 50)
    async with screen(writer.folder.parent, None) as pilot:
        assert pilot.app._waker._observer is None
        writer.healthy(51, 120)
        await until(pilot, lambda: "step 120 / 2,000" in pilot.text())


async def test_the_bell_rings_once_when_a_fault_is_proved(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 50)
    rings: list[None] = []
    async with screen(writer.folder.parent, None) as pilot:
        pilot.app.bell = lambda: rings.append(None)
        writer.steps(np.full(40, 2.9e-3), 51)
        await until(pilot, lambda: "LR STUCK" in pilot.text())
        await pilot.pause(0.5)
    assert 1 <= len(rings) <= 2  # off its schedule at the first record, frozen at the second


@pytest.mark.parametrize("harm", ["truncated", "replaced", "rotated", "deleted", "unreadable", "garbage"])
async def test_whatever_happens_to_the_log_the_screen_lives_and_says_so(writer: LogWriter, harm: str) -> None:
    writer.run()
    writer.healthy(1, 100)
    path = writer.folder / RUN_LOG
    async with screen(writer.folder.parent, writer.folder) as pilot:
        assert "step 100" in pilot.text()
        if harm == "truncated":
            content = path.read_bytes()
            with path.open("r+b") as file:
                file.truncate(len(content) // 2)
            await until(pilot, lambda: "the log was truncated" in pilot.text())
            assert pilot.app.session.history.length < 100
        elif harm == "replaced":
            other = LogWriter(writer.folder.parent / "other")
            other.run()
            other.healthy(1, 30)
            os.replace(other.folder / RUN_LOG, path)
            await until(pilot, lambda: "the log was replaced" in pilot.text() and "step 30" in pilot.text())
        elif harm == "rotated":
            writer.healthy(101, 110)  # perhaps not yet read: it is not lost
            path.rename(path.with_name(RUN_LOG + ".1"))
            second = LogWriter(writer.folder)
            second.healthy(111, 130)
            await until(pilot, lambda: "the log was rotated" in pilot.text() and "step 130" in pilot.text())
            assert pilot.app.session.history.step.tolist() == list(range(1, 131))
        elif harm == "unreadable":
            kept = path.rename(path.with_name("kept"))
            path.symlink_to(path)  # what even root cannot open
            await until(pilot, lambda: "the log cannot be read: Too many levels" in pilot.text())
            assert "step 100" in pilot.text()
            kept.replace(path)
            writer.healthy(101, 110)
            await until(pilot, lambda: "step 110" in pilot.text())
        elif harm == "deleted":
            path.unlink()
            await until(pilot, lambda: "the log was deleted" in pilot.text())
            assert "step 100" in pilot.text()
        else:
            with path.open("ab") as file:
                file.write(b"\x00\xff\x1b[2J garbage\n" * 50)
            writer.healthy(101, 110)
            await until(pilot, lambda: "step 110" in pilot.text())
            assert pilot.app.session.follower.bad_lines == 50


async def test_text_from_a_log_cannot_touch_the_terminal_or_pass_for_markup(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 10)
    writer.add(
        End(time=writer.time, step=10, reason="failed", error="\x1b[2J\x1b]0;owned\x07 [bold red]boom[/] $(reboot)")
    )
    async with screen(writer.folder.parent, writer.folder, (160, 40)) as pilot:
        text = pilot.text()
    assert "\x1b" not in text and "[bold red]boom[/] $(reboot)" in text


async def test_keys_open_and_close_what_they_should(frozen: Path) -> None:
    async with screen(frozen.parent, frozen) as pilot:
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, HelpScreen) and "zoom in" in pilot.text()
        await pilot.press("escape", "e")
        assert isinstance(pilot.app.screen, TextScreen) and "lr_stuck since step 1" in pilot.text()
        await pilot.press("escape")
        assert "learning rate (log)" in pilot.text()
        await pilot.press("y")
        assert "learning rate (linear)" in pilot.text()
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Search for commands" in pilot.text())
        await pilot.press("escape")
        await pilot.press("q")
    assert pilot.app.return_code == 0


async def test_an_empty_log_root_says_how_to_begin(tmp_path: Path) -> None:
    async with screen(tmp_path, None) as pilot:
        assert "eegpt-daemon start" in unwrapped(pilot.text())


async def test_an_attempt_that_rewinds_is_drawn_as_one_line_without_a_zigzag(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 300)
    writer.run(attempt=2, step=100, checkpoint="checkpoints/step-00000100.pt")
    writer.healthy(101, 150)
    async with screen(writer.folder.parent, writer.folder) as pilot:
        history = pilot.app.session.history
        assert history.step.tolist() == list(range(1, 151))
        assert len(history.superseded[0].step) == 200
        assert "attempt 2" in pilot.text()


@pytest.mark.parametrize("size", [(20, 6), (40, 10), (60, 16), (110, 30), (250, 80)])
async def test_it_draws_at_any_size(frozen: Path, size: tuple[int, int]) -> None:
    async with screen(frozen.parent, frozen, size) as pilot:
        assert "150" in pilot.text()
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: pilot.app.size == (80, 24) and "LR STUCK" in pilot.text())


async def test_keys_command_a_real_daemon_and_show_its_answers(
    daemon: Daemon, config_file: Callable[..., Path]
) -> None:
    path = config_file(top={"inject": "scheduler_stepped_per_epoch"}, max_epochs=100, pace_steps_per_s=8)
    await asyncio.to_thread(daemon.start, path)
    await asyncio.to_thread(daemon.wait_for_step, 10)
    async with screen(daemon.logs, None, (120, 36)) as pilot:
        await until(pilot, lambda: "LR STUCK" in pilot.text())
        await until(pilot, lambda: "● training" in pilot.text())

        await pilot.press("m")
        await pilot.pause()
        await pilot.press(*"3e-4")
        assert pilot.app.screen.query_one("#lr", Input).value == "3e-4"
        await pilot.press("enter")
        await until(pilot, lambda: "resume at LR 3e-4, then anneal: done: LR 3.00e-4 at step" in pilot.text())
        await until(pilot, lambda: "LR STUCK" not in pilot.text())

        first = pilot.app.session.folder
        await pilot.press("r")
        await pilot.pause()
        await until(pilot, lambda: "start a new run from step 0" in pilot.text())
        await pilot.press("enter")
        await until(pilot, lambda: "fresh restart: done" in pilot.text())
        await until(pilot, lambda: pilot.app.session.folder != first)
        await until(pilot, lambda: "✔ LR moves" in pilot.text())

        await until(
            pilot, lambda: "● training" in pilot.text()
        )  # before, there is nothing to write, and a toast says so
        await pilot.press("w")
        await until(pilot, lambda: "checkpoint: done: at step" in pilot.text())
        await pilot.press("s")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause(0.5)
        await until(pilot, lambda: "● training" in pilot.text())  # Escape cancels
        await pilot.press("s")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: "stop: done: at step" in pilot.text())
        await until(pilot, lambda: "○ stopped" in pilot.text())
    assert daemon.pid is not None  # the monitor's stop leaves the daemon ready
    assert ONE_CYCLE["name"] == daemon.records("run")[0]["schedule"]["name"]


async def test_a_script_of_ones_own_is_said_training_while_it_lives_and_dead_when_it_is_gone(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    from eegwatch.tui.widgets.status import state_of

    script = f"""
import time
from eegwatch import RunLog
log = RunLog({str(tmp_path / "logs")!r}, total_steps=1000)
for n in range(20):
    log.step(loss=0.5, lr=1e-3)
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    app = WatchApp(tmp_path / "logs")
    async with app.run_test(size=(100, 30)):
        await app.loaded()
        assert state_of(app.session)[0] == "training"
        process.kill()
        process.wait()
        state, why = state_of(app.session)
        assert state == "dead" and f"process {process.pid} is gone" in why


async def test_a_foreign_log_is_watched_and_cannot_be_commanded(tmp_path: Path) -> None:
    from eegwatch.formats import find

    path = tmp_path / "train.log"
    path.write_text("".join(f"Step {n} - Loss: 0.5000 - LR: 1.00e-03\n" for n in range(1, 200)))
    app = WatchApp(tmp_path, path, find(path))
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        assert "watching" in str(app.run_screen.status.render()) and app.session.history.length == 199
        await pilot.press("m")
        await pilot.pause()
        assert app.screen is app.run_screen
        path.write_text("")
        app._tick()
        app._tick()
        assert app.session.history.length == 0 and "truncated" in app.session.events[-1].text


async def test_a_log_of_a_name_that_says_nothing_has_that_of_its_folder_and_one_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eegwatch train.log` in the folder itself; the reader learns the length of the run while it reads."""
    folder = tmp_path / "experiment_7"
    folder.mkdir()
    lines = (f"[epoch {n // 200}] step {n}/2000 loss={1 / n:.4f} lr={1e-4:.3e}\n" for n in range(10, 2001, 10))
    (folder / "train.log").write_text("".join(lines))
    monkeypatch.chdir(folder)
    foreign = find(Path("train.log"))
    assert foreign is not None
    app = WatchApp(Path(), foreign.path, foreign)
    async with app.run_test(size=(120, 36)) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await settled(pilot)
        text = text_of(app, 120, 36)
        assert text.splitlines()[0].startswith(" experiment_7 ") and "step 2,000 / 2,000" in text
        assert "┊" not in text  # no second attempt
        assert [event.text for event in app.session.events if "began" in event.text] == ["run began"]


async def test_over_a_slow_link_it_draws_seldom_and_still_ends_at_the_newest_step(
    log_writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_writer.run()
    log_writer.healthy(1, 100)
    drawn: dict[str, int] = {"charts": 0, "figures": 0}
    app = WatchApp(log_writer.folder.parent, log_writer.folder, slow_link=True)
    async with app.run_test(size=(100, 32)) as pilot:
        await app.loaded()
        for name, method in (("charts", app.run_screen.redraw), ("figures", app.run_screen.show_ages)):

            def counted(name: str = name, method: Callable[[], None] = method) -> None:
                drawn[name] += 1
                method()

            monkeypatch.setattr(app.run_screen, method.__name__, counted)
        began = asyncio.get_running_loop().time()
        for step in range(101, 161):
            log_writer.healthy(step, step)
            await pilot.pause(0.05)
        spent = asyncio.get_running_loop().time() - began
        assert 1 <= drawn["charts"] <= spent / 2 + 1 and 1 <= drawn["figures"] <= spent / 0.5 + 1
        pilot.text = lambda: text_of(app, *app.size)  # type: ignore[attr-defined]
        await until(pilot, lambda: "step 160 / 2,000" in pilot.text())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("steps", "share", "words"),
    [
        (2000, 0.00812, "watcher 0.8 %   13.1 looks/1,000 steps"),
        (240, 0.036, "watcher 3.6 %   in 240 steps so far"),
    ],
)
async def test_what_watching_costs_stands_with_the_figures_of_the_system(
    healthy: Path, writer: LogWriter, steps: int, share: float, words: str
) -> None:
    """The first steps of an attempt are looked at more often: their share is not given out for that of the run."""
    values = {"looks": 46, "steps": steps, "spent_s": 0.04, "interval": 75, "share": share, "per_1000": 13.1}
    writer.add(Watch(time=writer.time, step=2000, look="cost", values=values))
    async with screen(healthy.parent, healthy, (160, 48)) as pilot:
        text = pilot.text()
        told = pilot.app.session.diagnosis.silent.share()
    assert words in text, text
    assert ("240 steps into this start: the first steps are looked at more often" in told) == (steps == 240)
