"""The page of scores: the evaluations with their intervals, and what was computed about the run."""

from __future__ import annotations

from eegwatch.run.records import Eval
from eegwatch.tui.app import WatchApp
from eegwatch.tui.screens.text import TextScreen
from tests.conftest import ONE_CYCLE, LogWriter


async def shown(writer: LogWriter) -> str:
    app = WatchApp(writer.folder.parent)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.loaded()
        await pilot.press("v")
        await pilot.pause()
        assert isinstance(app.screen, TextScreen)
        return "\n".join(line.plain for line in app.screen.lines)


async def test_scores_stand_with_their_intervals(log_writer: LogWriter) -> None:
    log_writer.run(ONE_CYCLE)
    log_writer.healthy(1, 100, ONE_CYCLE)
    log_writer.add(
        Eval(
            time=log_writer.time, step=100, split="eval", epoch=0, loss=0.4, auroc=0.875, balanced_accuracy=0.8,
            metrics={"auroc": 0.875, "recording_auroc": 0.9}, ci95={"auroc": (0.811, 0.932)},
            model="final", confusion={"window": [[40, 10], [5, 45]]},
        )
    )  # fmt: skip
    text = await shown(log_writer)
    assert "0.875" in text and "0.811" in text and "0.932" in text


async def test_a_run_without_an_evaluation_names_the_commands(log_writer: LogWriter) -> None:
    log_writer.run(ONE_CYCLE)
    log_writer.healthy(1, 10, ONE_CYCLE)
    text = await shown(log_writer)
    assert "no evaluation yet" in text and "eegpt-daemon optimum RUN" in text


async def test_evaluations_without_intervals_are_shown_as_they_were_logged(log_writer: LogWriter) -> None:
    log_writer.run(ONE_CYCLE)
    log_writer.healthy(1, 100, ONE_CYCLE)
    log_writer.eval(100, 0.8125)
    text = await shown(log_writer)
    assert "step 100:" in text and "auroc 0.8125" in text and "no evaluation yet" not in text
