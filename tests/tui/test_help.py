"""The help does what it says, and the palette knows every action."""

from __future__ import annotations

from pathlib import Path

from eegwatch.tui.actions import ACTIONS, GROUPS, possible
from eegwatch.tui.screens.help import HelpScreen
from tests.tui.test_run_screen import screen
from tests.tui.waiting import settled, until


async def test_enter_on_a_line_of_the_help_does_what_it_says(frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (120, 50)) as pilot:
        await pilot.press("question_mark")
        await settled(pilot)
        for group in GROUPS:
            assert group in pilot.text()
        assert "m r s w  cannot work now; pressed, each says why" in pilot.text()  # no daemon runs here
        await pilot.press("slash", *"zoom in", "enter")
        await settled(pilot)
        assert "zoom out" not in pilot.text()
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is pilot.app.run_screen)
        await until(pilot, lambda: pilot.app.run_screen.view.width is not None)


async def test_a_search_in_the_help_that_finds_nothing_says_so(frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (120, 50)) as pilot:
        await pilot.press("question_mark", "slash", *"no such thing")
        await settled(pilot)
        assert "nothing matches" in pilot.text()
        await pilot.press("escape")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HelpScreen) and "zoom in" in pilot.text()


async def test_the_palette_knows_every_action_that_can_work(frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (120, 50)) as pilot:
        titles = [command.title for command in pilot.app.get_system_commands(pilot.app.run_screen)]
        able = possible(pilot.app.session, read_only=False)
        assert len(titles) == len(able) + 1 and len(able) == sum(action.command is None for action in ACTIONS)
        await pilot.press("ctrl+p")
        await settled(pilot)
        await pilot.press(*"columns", "enter")
        await until(pilot, lambda: pilot.app.run_screen.charts.columns == 1)


def test_no_key_stands_twice_in_the_table() -> None:
    keys = [key for action in ACTIONS for key in action.keys.split(",")]
    assert len(keys) == len(set(keys))
