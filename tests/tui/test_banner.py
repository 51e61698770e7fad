"""What the top of the screen says of a run that died, failed, ended, or is none."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from eegwatch.run.control import DAEMON_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, DaemonState, End, Eval
from eegwatch.tui.app import WatchApp
from eegwatch.tui.banner import why_it_ended
from eegwatch.tui.text_frame import text_of
from eegwatch.wording import of_planned
from tests.conftest import LogWriter, unwrapped
from tests.tui.conftest import NOW, lock_held
from tests.tui.test_commands import burst, say, sent
from tests.tui.test_run_screen import screen
from tests.tui.waiting import settled, until


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("the trainer ended with killed by SIGKILL (the kernel's out-of-memory killer sends it too): x | y",
         "the training process was killed (SIGKILL), often for want of memory"),
        ("the trainer ended with exit code 1: Traceback (most recent call last): | File \"x.py\" | RuntimeError: CUDA out of memory",
         "the training process ended with exit code 1 (RuntimeError: CUDA out of memory)"),
        ("the trainer ended with exit code 3: step 12 loss 0.5 | step 13 loss 0.6", "the training process ended with exit code 3"),
        ("the disk is full", "the disk is full"),
    ],
)  # fmt: skip
def test_the_reason_of_an_end_has_no_lines_of_output_glued_to_it(error: str, words: str) -> None:
    assert why_it_ended(End(time=0, step=1, reason="failed", error=error)) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1 / 12, "1/12 of the planned LR"),
        (0.31, "1/3.2 of the planned LR"),
        (2.4, "2.4 times the planned LR"),
        (1.017, "1.7 % above the planned LR"),
        (0.9999999, "0.000010 % below the planned LR"),
        (0.0, "0 instead of the planned LR"),
    ],
)
def test_how_bad_is_said_as_a_share_of_the_planned_rate(ratio: float, words: str) -> None:
    assert of_planned(ratio) == words


async def test_a_dead_daemon_is_explained_with_the_command_that_helps_and_without_a_pace(frozen: Path) -> None:
    log = AppendLog(frozen.parent / DAEMON_LOG)
    log.append(DaemonState(time=NOW - 1200, state="training", pid=1, run_id=frozen.name, since=NOW - 3000))
    log.close()
    async with screen(frozen.parent, frozen, (120, 30)) as pilot:
        text = unwrapped(pilot.text())
        assert "✖ dead" in text and "the daemon died 20 min ago" in text
        assert "eegpt-daemon start --continue --logs" in text
        assert "it/s" not in text and " left " not in text and "samples/s" not in text


async def test_at_60_by_15_a_dead_daemon_comes_first_with_what_helps(frozen: Path) -> None:
    log = AppendLog(frozen.parent / DAEMON_LOG)
    log.append(DaemonState(time=NOW - 1200, state="training", pid=1, run_id=frozen.name, since=NOW - 3000))
    log.close()
    async with screen(frozen.parent, frozen, (60, 15)) as pilot:
        lines = [line.strip() for line in pilot.text().splitlines()]
        at = next(n for n, line in enumerate(lines) if "the daemon died 20 min ago" in line)
        assert lines[at + 1].startswith("do ") and "…" not in lines[at] + lines[at + 1]
        assert "LR STUCK" in lines[at + 2]


async def test_a_script_goes_on_without_its_daemon_and_its_results_have_their_own_names(frozen: Path) -> None:
    (frozen / "config.yaml").write_text("script: {command: [python, t.py]}")
    log = AppendLog(frozen.parent / DAEMON_LOG)
    log.append(DaemonState(time=NOW - 1200, state="training", pid=1, run_id=frozen.name, since=NOW - 3000))
    log.close()
    log = AppendLog(frozen / "run.jsonl")
    log.append(Eval(time=NOW, step=1, metrics={"kappa": 0.3125, "accuracy": 54.2}))
    log.close()
    async with screen(frozen.parent, frozen, (120, 30)) as pilot:
        text = unwrapped(pilot.text())
        assert "the script continues; the next daemon takes it over" in text
        assert "validation: kappa 0.3125, accuracy 54.2 at step 1" in text


async def test_a_trainer_that_dies_before_its_first_checkpoint_says_what_comes_next(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 119)
    error = "the trainer ended with killed by SIGKILL (the kernel's out-of-memory killer sends it too): a | b"
    writer.add(End(time=NOW - 60, step=119, reason="failed", error=error))
    logs = writer.folder.parent
    say(logs, "idle", writer.folder.name)
    with lock_held(logs):
        async with screen(logs, writer.folder, (120, 30)) as pilot:
            text = unwrapped(pilot.text())
            assert "failed at step 119: the training process was killed (SIGKILL), often for want of memory" in text
            assert "m resume from step 1, as there is no checkpoint yet · r restart · t what it printed" in text
            assert " | b" not in text and "it/s" not in text


async def test_an_idle_daemon_without_a_run_says_how_to_begin_one(tmp_path: Path) -> None:
    say(tmp_path, "idle", None)
    with lock_held(tmp_path):
        async with screen(tmp_path, None, (120, 30)) as pilot:
            text = unwrapped(pilot.text())
            assert "the daemon is idle and holds no run" in text and "None" not in text
            assert "eegpt-daemon stop --logs" in text and "&& eegpt-daemon start --config CONFIG.yaml" in text
            keys = str(pilot.app.run_screen.keys.render())
            assert "resume" not in keys and "restart" not in keys and "stop" not in keys  # nothing to command yet


@pytest.mark.parametrize("size", [(80, 24), (120, 30), (160, 48)])
async def test_the_end_of_a_run_says_what_came_out_and_what_now(
    writer: LogWriter, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole at every size: a path or a command that is cut cannot be used."""
    writer.run(target={"auroc": 0.85})
    writer.healthy(1, 2000)
    writer.eval(1800, 0.88)
    writer.add(Checkpoint(time=NOW, step=1800, path="checkpoints/step-00001800.pt", best=True))
    writer.add(Checkpoint(time=NOW, step=2000, path="checkpoints/step-00002000.pt"))
    writer.add(Eval(time=NOW, step=2000, split="eval", auroc=0.913, ci95={"auroc": [0.9, 0.92]}))
    writer.add(End(time=NOW, step=2000, reason="completed"))
    monkeypatch.chdir(writer.folder.parents[1])
    name = writer.folder.name
    async with screen(Path("logs"), Path("logs") / name, size) as pilot:
        text = unwrapped(pilot.text())
    assert "✔ completed" in text and "test AUROC 0.913 (0.900–0.920) · validation AUROC 0.880 of 0.85" in text
    assert f"best checkpoint logs/{name}/checkpoints/step-00001800.pt" in text
    assert f"do eegwatch report logs/{name} -o report.html" in text


async def test_a_log_without_a_single_step_is_said_to_be_none(tmp_path: Path) -> None:
    from eegwatch.formats import find

    path = tmp_path / "train.log"
    path.write_text("".join(f"Step {n} - Loss: 0.5000 - LR: 1.00e-03\n" for n in range(1, 20)))
    foreign = find(path)
    path.write_text("nothing\nof\nthe kind\n")
    app = WatchApp(tmp_path, path, foreign)
    async with app.run_test(size=(120, 30)) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await pilot.pause()
        text = unwrapped(text_of(app, 120, 30))
        assert "nothing in train.log is a step or an evaluation" in text and "--pattern" in text


async def test_a_run_log_that_holds_no_record_is_said_to_be_none(writer: LogWriter) -> None:
    (writer.folder / "run.jsonl").write_bytes(b"\x00\xff nonsense\n" * 20)
    async with screen(writer.folder.parent, writer.folder) as pilot:
        assert "run.jsonl: 20 lines, none of them a record" in pilot.text()


async def test_an_answer_fades_and_stays_in_the_events(writer: LogWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    from eegwatch.run.records import Answer

    writer.run()
    writer.healthy(1, 200)
    logs = writer.folder.parent
    say(logs, "training", writer.folder.name)
    with lock_held(logs):
        async with screen(logs, writer.folder) as pilot:
            burst(pilot.app, ["w"])
            await until(pilot, lambda: bool(sent(logs)))
            log = AppendLog(logs / DAEMON_LOG)
            log.append(
                Answer(time=NOW, id=sent(logs)[0]["id"], command="checkpoint", status="done", effect={"step": 200})
            )
            log.close()
            await until(pilot, lambda: "» checkpoint: done: at step 200" in pilot.text())
            assert "checkpoint done" not in pilot.text()  # not twice
            monkeypatch.setattr(time, "time", lambda: NOW + 31)
            await until(pilot, lambda: "» checkpoint" not in pilot.text())
            assert "checkpoint done: at step 200" in pilot.text()


async def test_events_stand_in_the_order_of_their_times(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 300)
    writer.steps([2e-3] * 100, 301)
    writer.eval(400, 0.7)
    async with screen(writer.folder.parent, writer.folder, (120, 40)) as pilot:
        events = pilot.app.session.newest_events()
        times = [event.time for event in events]
        assert times == sorted(times, reverse=True)
        stuck = next(event for event in events if "off schedule" in event.text or "stuck" in event.text)
        history = pilot.app.session.history
        assert history.time[295] <= stuck.time <= history.time[320]  # when it began to be so, not when it was read


async def test_a_problem_that_has_passed_is_no_longer_said(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 100)
    path = writer.folder / "run.jsonl"
    async with screen(writer.folder.parent, writer.folder) as pilot:
        kept = path.rename(path.with_name("kept"))
        path.symlink_to(path)
        await until(pilot, lambda: pilot.app.session.problem is not None)
        kept.replace(path)
        await until(pilot, lambda: pilot.app.session.problem is None)


async def test_a_warm_up_that_never_took_place_has_no_tick(writer: LogWriter) -> None:
    writer.run()
    writer.steps([1.2e-4] * 300)
    writer.run(attempt=2, step=300, checkpoint="checkpoints/step-00000300.pt")
    writer.healthy(301, 600)
    async with screen(writer.folder.parent, writer.folder, (160, 48)) as pilot:
        text = pilot.text()
        assert "STUCK" not in text and "! warm-up 1.2e-4 → 3e-3: did not" in text and "✔ warm-up" not in text
        (peak,) = [line for line in text.splitlines() if "peak LR" in line]
        assert "!" in peak and "✖" not in peak  # no fault where nothing else on the screen says one


NUMBER = re.compile(r"\de[+-]?0\d|\de\+")  # 1.35e-04 beside 1.35e-4


@pytest.mark.parametrize("size", [(80, 24), (120, 30), (200, 60)])
async def test_a_number_is_spelled_in_one_way_on_every_screen(frozen: Path, size: tuple[int, int]) -> None:
    say(frozen.parent, "training", frozen.name)
    with lock_held(frozen.parent):
        async with screen(frozen.parent, frozen, size) as pilot:
            for key in ("left", "e", "escape", "enter", "escape", "m", "3"):
                await pilot.press(key)
                await settled(pilot)
                assert not NUMBER.search(pilot.text())


async def test_an_empty_log_is_called_empty(tmp_path: Path) -> None:
    from eegwatch.formats import find

    path = tmp_path / "train.log"
    path.write_text("".join(f"Step {n} - Loss: 0.5000 - LR: 1.00e-03\n" for n in range(1, 20)))
    foreign = find(path)
    path.write_text("")
    app = WatchApp(tmp_path, path, foreign)
    async with app.run_test(size=(120, 30)) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await pilot.pause()
        text = unwrapped(text_of(app, 120, 30))
        assert "train.log is empty" in text and "--pattern" not in text
