"""No word on a screen is cut: what does not fit is left out whole, or stands in a second row below its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eegwatch.run.records import Finding
from tests.conftest import LogWriter, unwrapped
from tests.tui.test_run_screen import screen
from tests.tui.waiting import settled

CUT = re.compile(r"\w…")


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (100, 30), (120, 30), (200, 60)])
@pytest.mark.parametrize("run", ["healthy", "frozen"])
async def test_no_screen_cuts_a_word(run: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(run)
    async with screen(folder.parent, folder, size) as pilot:
        for keys in ((), ("left", "plus"), ("escape", "0", "enter"), ("escape", "e"), ("escape", "question_mark"),
                     ("escape", "R"), ("escape", "v"), ("escape", "m")):  # fmt: skip
            await pilot.press(*keys)
            await settled(pilot)
            assert not CUT.search(pilot.text()), (keys, pilot.text())


async def test_what_wraps_of_a_key_or_an_event_stands_below_its_words(frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (60, 24)) as pilot:
        await pilot.press("question_mark")
        await settled(pilot)
        lines = pilot.text().splitlines()
        at = next(n for n, line in enumerate(lines) if "a finding in full" in line)
        column = lines[at].index("a finding in full")
        assert lines[at + 1][1:column].strip() == "" and lines[at + 1][column] != " "
        await pilot.press("escape", "e")
        await settled(pilot)
        lines = pilot.text().splitlines()
        at = next(n for n, line in enumerate(lines) if re.search(r"ruled out  \S", line))
        column = lines[at].index("ruled out  ") + len("ruled out  ")
        assert lines[at + 1][1:column].strip() == "" and lines[at + 1][column] != " "


@pytest.mark.parametrize("width", [80, 120])
async def test_a_verdict_that_the_list_has_no_room_for_stands_in_full_below_it(writer: LogWriter, width: int) -> None:
    writer.run()
    writer.healthy(1, 300)
    words = "overfitting: validation loss 0.572, 7 % above its best, that of step 182"
    writer.add(
        Finding(time=writer.time, step=300, rule="overfitting", severity="warning", since_step=182, message=words)
    )
    async with screen(writer.folder.parent, writer.folder, (width, 30)) as pilot:
        await pilot.press("R")
        await settled(pilot)
        row = next(line for line in pilot.text().splitlines() if writer.folder.name in line)
        assert "overfitting: " in row and " …" in row
        assert "validation loss 0.572, 7 % above its best" in unwrapped(pilot.text())


@pytest.mark.parametrize("width", [100, 110, 112, 120])
async def test_how_bad_a_finding_is_stands_in_one_row(frozen: Path, width: int) -> None:
    async with screen(frozen.parent, frozen, (width, 34)) as pilot:
        await settled(pilot)
        lines = [line for line in pilot.text().splitlines() if line.strip()]
        at = next(n for n, line in enumerate(lines) if "if nothing is done" in line)
        assert lines[at + 1].startswith("    why")
