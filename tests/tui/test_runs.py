"""The list of runs: a thousand of them, filtered, switched to, laid over, compared; and the files of a run as text."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from textual.widgets import DataTable, Static

from eegwatch.run.records import End, Finding, Run
from eegwatch.run.seed_series import SeriesScores, write_scores
from eegwatch.tui import text_frame
from eegwatch.tui.app import WatchApp
from eegwatch.tui.screens.runs import RunsScreen
from eegwatch.tui.screens.text import TextScreen
from tests.conftest import ONE_CYCLE, LogWriter
from tests.patience import PATIENCE_S
from tests.tui.waiting import settled, until


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Three runs: a finished one, a failed one with a finding, and the newest."""
    root = tmp_path / "logs"
    for number, (name, lr) in enumerate([("good", 3e-3), ("bad", 1e-3), ("newest", 3e-3)]):
        writer = LogWriter(root / f"20261124-12000{number}-{name}")
        writer.run(ONE_CYCLE | {"max_lr": lr})
        writer.healthy(1, 300, ONE_CYCLE | {"max_lr": lr})
        writer.eval(200, 0.8)
        if name == "bad":
            writer.add(Finding(time=1.0, rule="lr_stuck", severity="error", step=9, since_step=1, message="LR frozen"))
            writer.add(End(time=2.0, step=300, reason="failed", error="gone"))
        (writer.folder / "config.yaml").write_text(f"training:\n  scheduler:\n    max_lr: {lr}\n")
        (writer.folder / "trainer.log").write_text("first line\n" * 200 + "\x1b[31m[bold]last[/bold] words\x1b[0m\n")
        writer.log.close()
    return root


def text_of(screen: TextScreen) -> str:
    return "\n".join(line.plain for line in screen.lines)


async def opened(app: WatchApp, pilot: object) -> RunsScreen:
    await app.loaded()
    app.run_screen.redraw()
    await pilot.press("R")  # type: ignore[attr-defined]
    await until(pilot, lambda: isinstance(app.screen, RunsScreen))
    await settled(pilot)
    return app.screen


async def test_the_list_says_state_progress_rate_and_verdict(logs: Path) -> None:
    app = WatchApp(logs)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        table = screen.query_one(DataTable)
        rows = [" ".join(str(cell) for cell in table.get_row_at(i)) for i in range(table.row_count)]
        assert ["newest" in rows[0], "bad" in rows[1], "good" in rows[2]] == [True] * 3
        assert "failed" in rows[1] and "LR frozen" in rows[1] and "300 / 2,000" in rows[1] and "0.800" in rows[1]
        assert "✔" in rows[0] and table.cursor_row == 0
        await pilot.press("j", "j", "k", "enter")
        await pilot.pause()
        assert app.session.folder is not None and app.session.folder.name.endswith("bad")
        assert not app.session.follow_newest


async def test_a_filter_an_overlay_and_a_comparison(logs: Path) -> None:
    app = WatchApp(logs)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("slash", *"bad", "enter")
        await pilot.pause()
        assert [folder.name[-3:] for folder in screen.shown] == ["bad"]
        await pilot.press("d")
        await pilot.pause()
        assert isinstance(app.screen, TextScreen)
        assert text_of(app.screen) == "training.scheduler.max_lr  0.003 → 0.001"
        await pilot.press("escape", "o")
        await until(pilot, lambda: len(app.session.overlaid) == 1)
        assert isinstance(app.screen, RunsScreen)  # the list stays open for the next one
        await pilot.press("escape", "escape")
        await settled(pilot)
        (laid,) = app.session.overlaid
        charts = app.run_screen.charts.charts
        assert app.screen is app.run_screen and laid.history.length == 300
        assert "A " in str(charts["lr"].border_title) and "bad" in str(charts["lr"].border_title)
        assert [series.label for series in charts["lr"].data.series] == ["", "A", ""]
        assert [series.label for series in charts["loss"].data.series][-2:] == ["", "A"]
        await opened(app, pilot)
        await pilot.press("j", "o")  # the same once more takes it away
        await pilot.pause()
        assert app.session.overlaid == []


async def test_all_columns_fit_120_and_the_list_is_sorted_by_what_s_chooses(logs: Path) -> None:
    app = WatchApp(logs)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        await settled(pilot)
        text = text_frame.text_of(app, 120, 40)
        for words in ("verdict", "AUROC", "step", "LR", "LR frozen", "0.800", "300 / 2,000", "unfinished", "failed"):
            assert words in text
        assert screen.table.max_scroll_x == 0
        for word in ("AUROC", "verdict"):
            await pilot.press("s")
            await settled(pilot)
            assert f"sorted by {word}" in text_frame.text_of(app, 120, 40)
        assert screen.shown[0].name.endswith("bad")
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        assert "LR frozen" in text_frame.text_of(app, 80, 24) and "0.800" in text_frame.text_of(app, 80, 24)


async def test_what_the_trainer_printed_and_the_configuration(logs: Path) -> None:
    app = WatchApp(logs)
    async with app.run_test(size=(100, 30)) as pilot:
        await app.loaded()
        await pilot.press("t")
        await pilot.pause()
        assert isinstance(app.screen, TextScreen)
        assert "[bold]last[/bold] words" in app.screen.lines[-1].plain
        assert "\x1b" not in text_of(app.screen)
        await pilot.press("t", "c")
        await pilot.pause()
        assert isinstance(app.screen, TextScreen) and "max_lr: 0.003" in text_of(app.screen)
        await pilot.press("c")
        assert app.screen is app.run_screen


async def test_a_thousand_runs_open_at_once_and_stay_quick(tmp_path: Path) -> None:
    for number in range(1000):
        writer = LogWriter(tmp_path / f"20261124-{number:06d}-run")
        writer.run()
        writer.healthy(1, 3)
        writer.log.close()
    app = WatchApp(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        assert screen.query_one(DataTable).row_count == 1000
        end = time.monotonic() + PATIENCE_S
        while len(screen.rows.known) < 1000 and time.monotonic() < end:
            await asyncio.sleep(0.1)
        last = screen.query_one(DataTable).get_row_at(999)
        assert "3 / 2,000" in str(last[4])


async def test_a_note_is_written_shown_filtered_by_and_removed(logs: Path) -> None:
    app = WatchApp(logs)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        folder = screen.shown[0]
        await pilot.press("n", *"lower LR", "enter")
        await pilot.pause()
        assert (folder / "note.txt").read_text() == "lower LR\n"
        assert "¶" in str(screen.table.get_row_at(0)[0]) and str(screen.query_one("#about").content) == "¶ lower LR"  # type: ignore[attr-defined]
        await pilot.press("n", *" twice", "escape")
        await pilot.pause()
        assert (folder / "note.txt").read_text() == "lower LR\n" and isinstance(app.screen, RunsScreen)
        await pilot.press("slash", *"lower", "enter")
        await pilot.pause()
        assert screen.shown == [folder]
        await pilot.press("n", "ctrl+u", "enter")
        await pilot.pause()
        assert not (folder / "note.txt").exists()


async def test_no_note_is_written_on_a_screen_that_is_read_only(logs: Path) -> None:
    app = WatchApp(logs, read_only=True)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("n", *"x", "enter")
        await pilot.pause()
        assert not (logs / screen.rows.folders[0].name / "note.txt").exists()


async def test_a_series_of_seeds_is_one_row_and_each_seed_one_key_away(logs: Path) -> None:
    first = "20261124-130001-swept-seed1"
    for seed in (1, 2):
        writer = LogWriter(logs / f"20261124-13000{seed}-swept-seed{seed}")
        writer.run()
        writer.healthy(1, 20)
        writer.eval(20, 0.7 + seed / 100)
        experiment = f"experiment: {{seed: {seed}, seeds: [1, 2, 3], series: {first}}}\n"
        (writer.folder / "config.yaml").write_text(experiment)
        writer.log.close()
    write_scores(logs / first, SeriesScores(seeds=[1, 2], figures={"auroc": [0.913, 0.88, 0.94]}))
    app = WatchApp(logs)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        table = screen.query_one(DataTable)
        assert [folder.name[16:] for folder in screen.shown] == ["swept-seed2", "newest", "bad", "good"]
        row = [str(cell) for cell in table.get_row_at(0)]
        assert f"{first} …" in row[0] and row[3] == "0.913"
        about = str(screen.query_one("#about", Static).render())
        assert "series of 3 seeds, 2 evaluated: AUROC 0.913 (0.880 to 0.940)" in about
        await pilot.press("e")
        await settled(pilot)
        assert [folder.name[16:] for folder in screen.shown][:2] == ["swept-seed2", "swept-seed1"]
        assert [str(table.get_row_at(i)[3]) for i in (0, 1)] == ["0.720", "0.710"]
        await pilot.press("j", "e")
        await settled(pilot)
        assert [folder.name[16:] for folder in screen.shown] == ["swept-seed2", "newest", "bad", "good"]
        assert table.cursor_row == 0


async def test_branches_stand_below_their_parent_and_are_drawn_over_it_with_one_key(logs: Path) -> None:
    parent = "20261124-120002-newest"
    for number, name in ((3, "lower"), (4, "lowest")):
        writer = LogWriter(logs / f"20261124-12000{number}-{name}")
        writer.add(Run(run_id=writer.folder.name, step=100, parent=parent, parent_step=100))
        writer.healthy(101, 150, ONE_CYCLE)
        writer.log.close()
    app = WatchApp(logs, logs / parent)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        await until(pilot, lambda: screen._complete)
        names = [folder.name[16:] for folder in screen.shown]
        assert names == ["newest", "lowest", "lower", "bad", "good"]
        assert "└ " in str(screen.table.get_row_at(1)[0]) and "└ " not in str(screen.table.get_row_at(0)[0])
        await pilot.press("b")
        assert screen.rows.overlays is not None
        await until(pilot, lambda: len(screen.rows.overlays.labels()) == 2)  # type: ignore[union-attr]
        assert {folder.name[16:] for folder in screen.rows.overlays.labels()} == {"lower", "lowest"}


async def test_a_run_whose_log_cannot_be_read_is_listed_as_that(logs: Path, tmp_path: Path) -> None:
    gone = logs / "20261125-150000-gone"
    gone.mkdir()
    (gone / "run.jsonl").symlink_to(tmp_path / "nowhere")
    app = WatchApp(logs)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = await opened(app, pilot)
        table = screen.query_one(DataTable)
        row = " ".join(str(cell) for cell in table.get_row_at(0))
        assert table.row_count == 4 and "gone" in row and "unreadable" in row
        assert app.session.folder is not None and app.session.folder.name.endswith(
            "newest"
        )  # not the one on the screen
