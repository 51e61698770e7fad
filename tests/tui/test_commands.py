"""What is typed is what is sent: the resume dialog, keys in one burst, and keys that cannot work."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from textual import events

from eegwatch.run.control import CONTROL, DAEMON_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Answer, Checkpoint, DaemonState, End
from eegwatch.tui.app import WatchApp
from eegwatch.tui.resume_form import can_branch, start_point
from eegwatch.tui.screens.dialogs import Confirm
from eegwatch.tui.screens.resume import ResumeDialog
from eegwatch.tui.text_frame import text_of
from tests.conftest import LogWriter
from tests.tui.conftest import NOW, lock_held
from tests.tui.test_run_screen import screen
from tests.tui.waiting import settled, until


def say(logs: Path, word: str, run_id: str | None, reason: str | None = None) -> None:
    """What a daemon would write about itself."""
    log = AppendLog(logs / DAEMON_LOG)
    log.append(DaemonState(time=time.time(), state=word, pid=1, run_id=run_id, since=time.time(), reason=reason))
    log.close()


def sent(logs: Path) -> list[dict[str, Any]]:
    path = logs / CONTROL
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def burst(app: WatchApp, keys: list[str]) -> None:
    """Keys that arrive together, as a paste, an ssh packet or a busy machine delivers them."""
    names = {"\r": ("enter", "\r"), "-": ("minus", "-"), " ": ("space", " "), ".": ("full_stop", ".")}
    for key in keys:
        name, character = names.get(key, (key, key if len(key) == 1 else None))
        event = events.Key(name, character)
        event.set_sender(app)
        app.post_message(event)


@pytest.mark.parametrize("round_", range(5))
@pytest.mark.parametrize("typed", ["3e-4", " 3e-4 ", "0.0003"])
async def test_a_burst_of_m_the_rate_and_enter_sends_that_rate(frozen: Path, typed: str, round_: int) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m", *typed, "\r"])
            await until(pilot, lambda: bool(sent(logs)))
            assert pilot.app.screen is pilot.app.run_screen  # no key went to another binding
            assert pilot.app.run_screen.charts.logarithmic == frozenset({"lr"})
            assert "resume at LR 3e-4, then anneal: sent" in pilot.text()
    (line,) = sent(logs)
    assert (line["command"], line["lr"], line["then"]) == ("resume", 3e-4, "anneal")


async def test_keys_typed_in_one_burst_into_an_open_dialog_are_what_is_sent(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            await pilot.press("m")
            await until(pilot, lambda: isinstance(pilot.app.screen, ResumeDialog))
            burst(pilot.app, [*"3e-4", "down", "\r"])  # down: hold
            await until(pilot, lambda: bool(sent(logs)))
    (line,) = sent(logs)
    assert (line["lr"], line["then"]) == (3e-4, "hold")


async def test_a_paste_into_a_dialog_that_is_not_there_yet_goes_into_its_field(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m"])
            pilot.app.post_message(events.Paste("3e-4\n"))
            burst(pilot.app, ["\r"])
            await until(pilot, lambda: bool(sent(logs)))
    assert sent(logs)[0]["lr"] == 3e-4


@pytest.mark.parametrize("typed", ["nan", "inf", "-inf", "1e9", "abc", "-1", "0", "3e-4x", "1e400", "٣e-4x"])
async def test_what_is_no_usable_rate_is_refused_before_anything_is_written(frozen: Path, typed: str) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m", *typed, "\r"])
            await settled(pilot)
            assert isinstance(pilot.app.screen, ResumeDialog) and pilot.app.screen.judged.problem
    assert sent(logs) == []


async def test_an_emptied_field_with_a_chosen_way_on_is_refused(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m", "3", "down", "backspace", "\r"])
            await settled(pilot)
            assert "hold needs a learning rate" in pilot.text()
            burst(pilot.app, ["up", "up", "3", "\r"])  # rejoin, and a rate: one of them is not meant
            await settled(pilot)
            assert "rejoin uses the planned LR" in pilot.text()
    assert sent(logs) == []


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("abc", "'abc' is not a number"),
        ("-1", "above 0, not -1"),
        ("nan", "finite number above 0"),
        ("5", "5 is above the planned maximum 3e-3"),
        ("3e-4", "resume at your LR: 3.00e-4 from step 101"),
        ("", "resume on the planned curve: 1.57e-3 from step 101"),
    ],
)
async def test_the_resume_dialog_judges_as_the_daemon_would(frozen: Path, typed: str, words: str) -> None:
    async with screen(frozen.parent, frozen) as pilot:
        answers: list[Any] = []
        pilot.app.push_screen(ResumeDialog(pilot.app.session), answers.append)
        await pilot.pause()
        await pilot.press(*typed)
        await pilot.pause()
        assert words in pilot.text()
        await pilot.press("enter")
        await pilot.pause()
        if "resume" in words:
            assert len(answers) == 1 and answers[0].lr == (float(typed) if typed else None)
        else:
            assert isinstance(pilot.app.screen, ResumeDialog)
            await pilot.press("escape")
            assert answers == [None]


async def test_a_rate_above_the_planned_maximum_needs_the_box_and_says_so(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m", *"4e-3"])
            await settled(pilot)
            dialog = pilot.app.screen
            assert "▐ ▌ yes, use an LR above the planned maximum (3e-3)" in pilot.text()
            await pilot.press("tab", "tab", "tab", "space")
            await pilot.pause()
            assert "▐✔▌ yes" in pilot.text() and not dialog.judged.problem
            await pilot.press("enter")
            await until(pilot, lambda: bool(sent(logs)))
    (line,) = sent(logs)
    assert line["lr"] == 4e-3 and line["force"] is True


async def test_the_preview_moves_with_the_run(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 200)
    logs = writer.folder.parent
    say(logs, "training", writer.folder.name)
    with lock_held(logs):
        async with screen(logs, writer.folder, (120, 40)) as pilot:
            await pilot.press("m")
            await until(pilot, lambda: "from step 201" in pilot.text())
            writer.healthy(201, 320)
            await until(pilot, lambda: "from step 321" in pilot.text() and "(320 now)" in pilot.text())
            (mark,) = pilot.app.screen.preview.data.marks
            assert mark[0] == 321


async def test_without_a_checkpoint_the_preview_begins_at_step_1(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 119)
    writer.add(End(time=NOW, step=119, reason="failed", error="killed"))
    logs = writer.folder.parent
    say(logs, "idle", writer.folder.name)
    with lock_held(logs):
        async with screen(logs, writer.folder, (120, 40)) as pilot:
            assert start_point(pilot.app.session).step == 0
            await pilot.press("m")
            await until(pilot, lambda: "1.20e-4 from step 1," in pilot.text())
            assert "there is no checkpoint yet" in pilot.text()


async def test_an_answer_with_another_rate_than_was_asked_for_is_said_in_red(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m", *"3e-4", "\r"])
            await until(pilot, lambda: bool(sent(logs)))
            log = AppendLog(logs / DAEMON_LOG)
            effect = {"lr": 1.9e-3, "step": 151}
            answer = Answer(time=NOW, id=sent(logs)[0]["id"], command="resume", status="done", effect=effect)
            log.append(answer)
            log.close()
            await until(pilot, lambda: "NOT what was asked: LR 1.90e-3 at step 151" in pilot.text())


# ---- as a new run ----


async def open_resume(pilot: Any) -> Any:
    await pilot.press("m")
    await until(pilot, lambda: isinstance(pilot.app.screen, ResumeDialog))
    return pilot.app.screen


async def test_with_a_name_the_resume_is_a_new_run_and_the_screen_goes_on_with_that(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen, (120, 30)) as pilot:
            dialog = await open_resume(pilot)
            assert "as a new run" in pilot.text() and not dialog.branch_told.display
            burst(pilot.app, [*"3e-4", "tab", "tab", *"my low"])
            await until(pilot, lambda: "--lr 3e-4 --then anneal --as 'my low'" in pilot.text())
            assert "new run …-my_low: this run is stopped and stays as it is" in pilot.text()
            assert "begins after the current step (150 now), where a checkpoint is written" in pilot.text()
            await pilot.press("enter")
            await until(pilot, lambda: bool(sent(logs)))
            assert "resume as my low at LR 3e-4, then anneal: sent" in pilot.text()
            branch = LogWriter(logs / "20261118-130000-my_low")
            branch.run(parent=frozen.name, parent_step=150)
            branch.steps([3e-4] * 5, first=151)
            branch.log.close()
            log = AppendLog(logs / DAEMON_LOG)
            effect = {"lr": 3e-4, "step": 151, "run_id": branch.folder.name}
            log.append(Answer(time=NOW, id=sent(logs)[0]["id"], command="resume", status="done", effect=effect))
            log.close()
            await until(pilot, lambda: pilot.app.session.folder == branch.folder)
            await until(pilot, lambda: branch.folder.name in pilot.text() and "step 155" in pilot.text())
    (line,) = sent(logs)
    assert (line["run_id"], line["lr"], line["then"], line["as"]) == (frozen.name, 3e-4, "anneal", "my low")


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 30)])
async def test_the_field_of_a_new_run_fits_every_size_and_is_empty_for_this_run(
    frozen: Path, size: tuple[int, int]
) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen, size) as pilot:
            dialog = await open_resume(pilot)
            await pilot.press("tab", "tab", "b")
            await settled(pilot)
            for words in ("as a new run", "new run …-b: this run is stopped", "Enter resume", "Esc cancel"):
                assert words in pilot.text(), f"{words!r} is not in\n{pilot.text()}"
            assert dialog.preview.size.height >= 3
            await pilot.press("backspace", "enter")
            await until(pilot, lambda: bool(sent(logs)))
    assert "as" not in sent(logs)[0]


OUTSIDE = "script: {command: [python, t.py], resume: [python, t.py, '{checkpoint}'], checkpoints: '/data/*.pt'}"
NO_RESUME = "script: {command: [python, t.py], checkpoints: '*.pt'}"
INSIDE = "script: {command: [python, t.py], resume: [python, t.py, '{checkpoint}'], checkpoints: '*.pt'}"


@pytest.mark.parametrize(
    ("config", "daemon", "checkpoint", "shown"),
    [
        ("training: {}", True, True, True),
        ("training: {}", False, True, False),  # nobody could begin it
        ("training: {}", True, False, False),  # nowhere to begin
        (INSIDE, True, True, True),
        (OUTSIDE, True, True, False),  # it would write over this run's checkpoints
        (NO_RESUME, True, True, False),
    ],
)
async def test_a_new_run_is_offered_where_the_daemon_would_begin_one(
    writer: LogWriter, config: str, daemon: bool, checkpoint: bool, shown: bool
) -> None:
    logs = writer.folder.parent
    (writer.folder / "config.yaml").write_text(config)
    writer.run()
    writer.healthy(1, 120)
    if checkpoint:
        writer.add(Checkpoint(time=writer.time, step=100, epoch=0, path="checkpoints/step-00000100.pt"))
    say(logs, "training", writer.folder.name)
    with lock_held(logs) if daemon else nullcontext():
        async with screen(logs, writer.folder) as pilot:
            assert can_branch(pilot.app.session) is shown
            pilot.app.push_screen(ResumeDialog(pilot.app.session))
            await until(pilot, lambda: "resume this run" in pilot.text())
            assert ("as a new run" in pilot.text()) is shown


# ---- keys that cannot work ----


def offered(pilot: Any) -> str:
    """The key bar."""
    return str(pilot.app.run_screen.keys.render())


def toast(pilot: Any) -> str:
    return " ".join(note.message for note in pilot.app._notifications)


async def test_without_a_daemon_no_command_key_is_offered_and_each_says_what_to_type(frozen: Path) -> None:
    (frozen / "config.yaml").write_text("training: {}\n")
    async with screen(frozen.parent, frozen) as pilot:
        assert "resume" not in offered(pilot) and "stop" not in offered(pilot) and "q quit" in offered(pilot)
        assert "m resume" not in pilot.text()
        for key in "mrsw":
            await pilot.press(key)
            await until(pilot, lambda: "No daemon runs" in toast(pilot) and "eegpt-daemon start" in toast(pilot))
            assert not isinstance(pilot.app.screen, Confirm | ResumeDialog)
    assert sent(frozen.parent) == []


async def test_a_completed_run_offers_a_restart_alone(healthy: Path) -> None:
    logs = healthy.parent
    say(logs, "idle", healthy.name)
    with lock_held(logs):
        async with screen(logs, healthy, (120, 30)) as pilot:
            assert "r restart" in offered(pilot) and "m resume" not in offered(pilot) and "s stop" not in offered(pilot)
            await pilot.press("m")
            await until(pilot, lambda: "taken all its 2,000 steps" in toast(pilot))
            await pilot.press("s")
            await until(pilot, lambda: "Nothing is training" in toast(pilot))
    assert sent(logs) == []


async def test_read_only_offers_no_command(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        app = WatchApp(logs, frozen, read_only=True)
        async with app.run_test(size=(120, 30), notifications=True) as pilot:
            await app.loaded()
            app.run_screen.redraw()
            await pilot.pause()
            pilot.text = lambda: text_of(app, *app.size)  # type: ignore[attr-defined]
            assert "resume" not in offered(pilot)
            assert "m resume" not in pilot.text()  # type: ignore[attr-defined]
            await pilot.press("m", "r", "s", "w")
            await until(pilot, lambda: "--read-only" in toast(pilot))
            await pilot.press("question_mark")
            await pilot.pause()
            assert not any(action.command for action in pilot.app.screen.actions)
    assert sent(logs) == []


async def test_another_run_than_the_daemons_is_not_controlled(frozen: Path) -> None:
    logs = frozen.parent
    other = LogWriter(logs / "20261118-130000-other")
    other.run()
    other.healthy(1, 20)
    other.log.close()
    say(logs, "training", other.folder.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            assert "resume" not in offered(pilot)
            await pilot.press("m")
            await until(pilot, lambda: "Press R and choose that run" in toast(pilot))


async def test_on_a_narrow_screen_the_help_and_quit_keys_stay_the_longest(frozen: Path) -> None:
    say(frozen.parent, "training", frozen.name)
    with lock_held(frozen.parent):
        async with screen(frozen.parent, frozen, (60, 15)) as pilot:
            assert "? help" in offered(pilot) and "q quit" in offered(pilot) and "m resume" in offered(pilot)
            await pilot.press("m")
            await until(pilot, lambda: isinstance(pilot.app.screen, ResumeDialog))
            text = pilot.text()
            for words in ("Enter resume", "Esc cancel", "rejoin", "anneal", "hold", "scale"):
                assert words in text


async def test_a_key_after_a_dialog_has_closed_is_not_lost(frozen: Path) -> None:
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            burst(pilot.app, ["m", "escape", "y", "s", "\r"])
            await until(pilot, lambda: bool(sent(logs)))
            assert pilot.app.run_screen.charts.logarithmic == frozenset()
    assert [line["command"] for line in sent(logs)] == ["stop"]


async def test_ten_bursts_in_a_row_under_load_lose_nothing(frozen: Path) -> None:
    """While the loop is kept busy, as a long log that is being read keeps it."""
    logs = frozen.parent
    say(logs, "training", frozen.name)
    with lock_held(logs):
        async with screen(logs, frozen) as pilot:
            busy = True

            async def load() -> None:
                while busy:
                    time.sleep(0.02)
                    await asyncio.sleep(0)

            task = asyncio.create_task(load())
            rates = [f"{n}e-5" for n in range(1, 11)]
            for rate in rates:
                burst(pilot.app, ["m", *rate, "\r"])
            await until(pilot, lambda: len(sent(logs)) == 10)
            busy = False
            await task
    assert [line["lr"] for line in sent(logs)] == [float(rate) for rate in rates]
