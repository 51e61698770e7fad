"""Where things stand at each size: what needs room has it, nothing lies under anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.run.records import Eval
from eegwatch.tui.app import WatchApp
from eegwatch.tui.screens.dialogs import Confirm
from eegwatch.tui.screens.evidence import EvidenceScreen
from eegwatch.tui.screens.help import HelpScreen
from eegwatch.tui.screens.resume import ResumeDialog
from eegwatch.tui.screens.runs import RunsScreen
from eegwatch.tui.screens.text import TextScreen
from eegwatch.tui.text_frame import text_of
from tests.conftest import LogWriter, unwrapped
from tests.tui.conftest import lock_held
from tests.tui.test_commands import say
from tests.tui.test_run_screen import screen
from tests.tui.waiting import settled, until


def rows(pilot: Any, name: str) -> int:
    return int(pilot.app.run_screen.charts.charts[name].size.height)


@pytest.mark.parametrize("size", [(80, 24), (100, 32), (120, 30), (120, 40)])
async def test_the_rate_has_more_room_while_something_is_wrong_with_it(frozen: Path, size: tuple[int, int]) -> None:
    async with screen(frozen.parent, frozen, size) as pilot:
        await settled(pilot)
        assert "LR STUCK" in pilot.text()
        assert rows(pilot, "lr") > rows(pilot, "loss") and rows(pilot, "lr") >= 6


async def test_charts_fill_a_large_screen(writer: LogWriter) -> None:
    """Eight at 200 x 60 where a log has as many, whether something is wrong or not."""
    writer.run()
    writer.healthy(1, 150)
    values = dict.fromkeys(("kappa", "f1", "recall", "precision"), 0.5)
    writer.add(Eval(time=writer.time, step=150, split="val", loss=0.5, auroc=0.8, metrics=values))
    async with screen(writer.folder.parent, writer.folder, (200, 60)) as pilot:
        await settled(pilot)
        shown = [chart for chart in pilot.app.run_screen.charts.children if chart.display]
        assert len(shown) == 8
        assert {chart.region.right for chart in shown} == {78, 156}  # two columns up to the panels


@pytest.mark.parametrize(
    ("key", "over"),
    [("R", RunsScreen), ("enter", EvidenceScreen), ("e", TextScreen), ("question_mark", HelpScreen),
     ("m", ResumeDialog), ("s", Confirm)],
)  # fmt: skip
@pytest.mark.parametrize("size", [(60, 15), (80, 24)])
async def test_no_sliver_of_what_lies_below_shows_beside_a_dialog(
    frozen: Path, key: str, over: type[Any], size: tuple[int, int]
) -> None:
    say(frozen.parent, "training", frozen.name)
    with lock_held(frozen.parent):
        async with screen(frozen.parent, frozen, size) as pilot:
            await pilot.press(key)
            await until(pilot, lambda: isinstance(pilot.app.screen, over))
            await settled(pilot)
            (box,) = [child for child in pilot.app.screen.children if child.region.width]
            beside = box.region.x + size[0] - box.region.right
            assert beside == 0 or beside >= 4


def test_the_style_of_a_widget_names_its_own_class() -> None:
    """A class that was renamed, and its style not, has neither border nor size, and nothing says so."""
    from eegwatch.tui.screens import dialogs, evidence, help, resume, run, runs, text
    from eegwatch.tui.widgets import chart, grid, keybar, output, panels, status, verdict

    rooms = (dialogs, evidence, help, resume, run, runs, text, chart, grid, keybar, output, panels, status, verdict)
    styled = [
        one for room in rooms for one in vars(room).values() if isinstance(one, type) and "DEFAULT_CSS" in vars(one)
    ]
    ours = [one for one in styled if one.__module__.startswith("eegwatch.")]
    assert len(ours) >= 18
    for one in ours:
        assert one.__dict__["DEFAULT_CSS"].split()[0] == one.__name__, one


async def test_a_restart_says_that_the_injected_fault_is_left_out(frozen: Path) -> None:
    say(frozen.parent, "training", frozen.name)
    with lock_held(frozen.parent):
        async with screen(frozen.parent, frozen, (76, 24)) as pilot:  # as wide as the question
            await pilot.press("r")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await settled(pilot)
            assert "without the injected fault (scheduler_stepped_per_epoch)" in unwrapped(pilot.text())
            assert "The old run and its checkpoints stay where they are" in unwrapped(pilot.text())


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
async def test_the_key_and_the_change_in_the_code_are_told_apart_and_each_once(frozen: Path, width: int) -> None:
    say(frozen.parent, "training", frozen.name)
    with lock_held(frozen.parent):
        async with screen(frozen.parent, frozen, (width, 34)) as pilot:
            lines = [line.strip() for line in pilot.text().splitlines()]
            done = [line for line in lines if line.startswith(("do ", "code "))]
            assert done and len(done) == len({line.split(" ")[0] for line in done})
            assert all(not line.startswith("code ") or "restart" not in line for line in done)
            assert np.all([pilot.text().count("m resume") <= 2])  # in the verdict and in the key bar


async def test_at_60_by_15_the_ticks_take_one_row_and_the_rest_is_the_charts(frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (60, 15)) as pilot:
        await settled(pilot)
        assert pilot.app.run_screen.ticks.size.height == 1 and rows(pilot, "lr") >= 7
        assert "✖ LR moves" in pilot.text() and "AUROC" in pilot.text()


@pytest.mark.parametrize("size", [(80, 24), (100, 32), (120, 30)])
async def test_why_is_said_to_its_end(frozen: Path, size: tuple[int, int]) -> None:
    async with screen(frozen.parent, frozen, size) as pilot:
        await settled(pilot)
        said = unwrapped(pilot.text())
        assert "the scheduler is stepped once per epoch, or the scheduler is never stepped (step 201 will tell)" in said
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, EvidenceScreen))
        await until(pilot, lambda: "scheduler_stepped_per_epoch:" in pilot.text())
        lines = [line.strip("│ ") for line in pilot.text().splitlines()]
        begin = next(n for n, line in enumerate(lines) if line.startswith("a  scheduler_stepped_per_epoch:"))
        second = pilot.text().splitlines()[begin + 1]
        assert second.startswith("│    ") and second[5] != " "  # below the words, not below the letter


async def test_the_checklist_has_the_panels_width_from_the_first_frame_on(frozen: Path) -> None:
    """It is laid out again when its panel gets its size, whether or not anything else is drawn then."""
    app = WatchApp(frozen.parent, frozen)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: hasattr(app, "run_screen") and app.run_screen.checklist.content_size.width > 0)
        await app.loaded()
        app.run_screen.checklist.show(app.session)
        app.run_screen.settings.side_width = 60
        app.run_screen.side.styles.width = 60  # as a drag of its edge does, without a redraw
        await until(pilot, lambda: app.run_screen.checklist.content_size.width > 50)
        await settled(pilot)
        assert "loss within batch noise (after the first" in text_of(app, 120, 30)
