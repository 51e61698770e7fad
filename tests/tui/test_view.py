"""The part of a run that the charts show: zoom, pan, follow, cursor, axes, smoothing; by value, by key and by mouse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eegwatch.charts.view import View, on_axis, readout, whole_of
from eegwatch.run.follow import history_of
from eegwatch.run.history import History
from eegwatch.tui.app import WatchApp
from tests.conftest import LogWriter


@pytest.fixture
def history(log_writer: LogWriter) -> History:
    log_writer.run()
    log_writer.healthy(1, 1000)
    return history_of(log_writer.folder)


def test_zooming_keeps_its_centre_and_ends_at_the_whole(history: History) -> None:
    assert View().window(history) == (0, 2000) and whole_of(history) == 2000
    near = View().zoomed(history, 4, about=500)
    left, right = near.window(history)
    assert right - left == 500 and (500 - left) / 500 == pytest.approx(0.25)
    assert near.zoomed(history, 1 / 8).width is None
    closest = near
    for _ in range(20):
        closest = closest.zoomed(history, 2)
    assert closest.width == 10
    assert View().zoomed(history, 2).window(history) == (500, 1500)  # about the newest step


def test_panning_stays_within_the_run_and_ends_following(history: History) -> None:
    near = View().zoomed(history, 4, about=500)
    assert near.panned(history, 0.5).window(history)[0] == near.window(history)[0] + 250
    assert near.panned(history, -9).window(history)[0] == 0 and near.panned(history, 99).window(history)[1] == 2000
    following = near.following(history)
    assert following.window(history) == (500, 1000)
    assert not following.panned(history, -0.2).follow and not following.following(history).follow
    assert View().panned(history, 0.5) == View()


def test_the_cursor_is_on_logged_steps_alone_and_reads_them_out(history: History) -> None:
    assert View().pointed(history, 400.4).cursor == 400 and View().pointed(history, 99_999).cursor == 1000
    first = View().stepped(history, -1)
    assert first.cursor == 1000 and first.stepped(history, -1).cursor == 980
    close = replace(View().zoomed(history, 200, about=990), cursor=990)
    assert close.stepped(history, 1).cursor == 991
    said = readout(history, 400, float(history.lr[399]))
    assert said.startswith("step 400 · LR ") and "expected" in said and "epoch 2, batch 200" in said and "loss" in said
    assert readout(history, 1500, None) == "step 1,500: no record"
    assert View().pointed(History(), 5).cursor is None


def test_axes_are_steps_epochs_or_hours(history: History) -> None:
    steps = np.array([1, 200, 1000, 1500])
    assert on_axis(history, "step", steps).tolist() == steps.tolist()
    assert on_axis(history, "epoch", steps).tolist() == [0.005, 1, 5, 7.5]
    hours = on_axis(history, "time", steps)  # a step every 0.1 s
    np.testing.assert_allclose(hours, (steps - 1) * 0.1 / 3600, rtol=1e-3)
    assert View().next_axis().next_axis().next_axis() == View()


def test_smoothing_has_ends(history: History) -> None:
    assert View().smoothed(-9).smoothing == 0 and View().smoothed(9).smoothing == 4


async def test_every_key_moves_the_view(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 1000)
    app = WatchApp(log_writer.folder.parent, log_writer.folder)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.loaded()
        screen = app.run_screen
        screen.redraw()
        await pilot.press("plus", "plus")
        assert screen.view.width == 500 and "zoomed" in str(screen.charts.charts["lr"].border_title)
        left = screen.view.left
        await pilot.press("h")
        assert screen.view.left == left - 100
        await pilot.press("shift+right", "l")
        assert screen.view.left == left + 100
        await pilot.press("f")
        assert screen.view.follow and screen.charts.charts["lr"].data.right == 1000
        log_writer.healthy(1001, 1010)
        while screen.charts.charts["lr"].data.right == 1000:
            await pilot.pause(0.05)
        assert screen.charts.charts["lr"].data.right == 1010
        await pilot.press("left")
        assert screen.view.cursor == 1010 and "step 1,010" in str(screen.charts.charts["lr"].border_title)
        assert screen.charts.charts["loss"].data.cursor == screen.charts.charts["lr"].data.cursor == 1010
        await pilot.press("right", "left", "escape")
        assert screen.view.cursor is None
        await pilot.press("x")
        assert screen.charts.charts["lr"].data.right == 1010 / 200
        await pilot.press("x", "x", "left_square_bracket", "minus", "0")
        assert screen.view.smoothing == 1 and screen.view.window(app.session.history) == (0, 2000)


async def test_the_mouse_zooms_pans_and_points(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 2000)
    app = WatchApp(log_writer.folder.parent, log_writer.folder)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.loaded()
        screen = app.run_screen
        screen.redraw()
        await pilot.pause()
        plot = screen.charts.charts["lr"].content_size.width - 8
        await pilot.click(screen.charts.charts["lr"], offset=(9 + plot // 2, 3))
        assert screen.view.cursor == pytest.approx(1000, abs=40)
        screen.look(replace(screen.view, cursor=None))
        from textual import events

        def at(share: float) -> dict[str, object]:
            x = 9 + share * plot
            return {"widget": screen.charts.charts["lr"], "x": x, "y": 3, "delta_x": 0, "delta_y": 0, "button": 1, "shift": False, "meta": False, "ctrl": False}  # fmt: skip

        screen.charts.charts["lr"].post_message(events.MouseScrollUp(**at(0.5)))  # type: ignore[arg-type]
        await pilot.pause()
        left, right = screen.view.window(app.session.history)
        assert right - left == pytest.approx(1600) and left == pytest.approx(200, abs=30)
        await pilot.mouse_down(screen.charts.charts["lr"], offset=(9 + plot // 2, 3))
        await pilot.hover(screen.charts.charts["lr"], offset=(9 + plot // 4, 3))
        await pilot.mouse_up(screen.charts.charts["lr"], offset=(9 + plot // 4, 3))
        assert screen.view.window(app.session.history)[0] == 400  # dragged as far as the run goes
        assert screen.view.cursor is None


async def test_a_picture_of_the_screen_is_saved(
    log_writer: LogWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_writer.run()
    log_writer.healthy(1, 100)
    monkeypatch.chdir(tmp_path)
    app = WatchApp(log_writer.folder.parent, log_writer.folder)
    async with app.run_test(size=(100, 30)) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await pilot.press("p")
        await pilot.pause()
    (picture,) = tmp_path.glob("eegwatch-*.svg")
    assert "learning" in picture.read_text() and picture.read_text().startswith("<svg")
