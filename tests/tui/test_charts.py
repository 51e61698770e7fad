"""What the charts draw: the residual, gaps, attempts, the noise band, other runs; which are shown, and how large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.charts import deviation as deviations
from eegwatch.charts.deviation import Deviation, expected_at
from eegwatch.charts.kinds import KINDS, kinds
from eegwatch.charts.model import ChartStyle
from eegwatch.charts.view import readout
from eegwatch.diagnosis.rules.batch_noise import batch_loss_band
from eegwatch.run.follow import history_of
from eegwatch.run.history import History
from eegwatch.run.records import ScheduleChange, System
from eegwatch.schedule import as_dict, parse, resumed
from eegwatch.tui.ascii import to_ascii
from eegwatch.tui.widgets.chart import Chart
from eegwatch.tui.widgets.panels import sparkline
from tests.conftest import ONE_CYCLE, LogWriter
from tests.tui.conftest import EXPECTED
from tests.tui.test_run_screen import screen
from tests.tui.waiting import settled, until

BY_NAME = {kind.name: kind for kind in KINDS}


def drawn(name: str, history: History, look: ChartStyle | None = None) -> Any:
    return BY_NAME[name].draw(history, look or ChartStyle())


def shown(pilot: Any) -> list[str]:
    """Names of the charts on the screen, in order."""
    return [chart.id for chart in pilot.app.run_screen.charts.children if chart.display]


def test_the_residual_is_exact_step_by_step_and_across_attempts(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 300)
    deviation, history = Deviation(), history_of(log_writer.folder)
    assert np.abs(deviation.of(history)).max() < 1e-10
    log_writer.run(attempt=2, step=200)
    expected = history.lr[200:300]
    log_writer.steps(expected * np.linspace(1, 2, 100), first=201)
    history = history_of(log_writer.folder)
    values = Deviation().of(history)
    assert np.allclose(values[200:], (np.linspace(1, 2, 100) - 1) * 100, atol=1e-4)
    assert len(deviation.of(history)) == 300 and np.array_equal(deviation.of(history), values)


def test_the_largest_residual_counts_also_where_it_was_computed_in_blocks(
    log_writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deviations, "BLOCK", 64)
    log_writer.run()
    log_writer.healthy(1, 100)
    wrong = Deviation().of(history_of(log_writer.folder))
    assert np.abs(wrong).max() < 1e-10
    log_writer.steps([9e-3, float("nan")], first=101)  # the largest, then one that is not known
    history, deviation = history_of(log_writer.folder), Deviation()
    values = deviation.of(history)
    assert len(values) == 102 and deviation.largest == np.nanmax(values) > 100
    log_writer.steps([float("inf")], first=103)
    history = history_of(log_writer.folder)
    deviation.of(history)
    assert deviation.largest == np.inf
    log_writer.run(attempt=2, step=90)  # which does the wrong ones again
    log_writer.healthy(91, 95)
    assert np.abs(deviation.of(history_of(log_writer.folder))).max() == deviation.largest < 1e-10


def test_a_residual_below_the_last_bits_of_a_float_is_zero(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 300)
    assert not drawn("residual", history_of(log_writer.folder)).series[-1].y.any()


def test_the_noise_band_is_that_of_batch_size_and_auroc(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 200)
    log_writer.eval(200, 0.79)
    picture = drawn("loss", history_of(log_writer.folder))
    dotted = [series.y[0] for series in picture.series if series.kind == "dotted"]
    assert dotted == list(batch_loss_band(0.79, 16))


def test_only_what_the_log_holds_has_a_chart(log_writer: LogWriter) -> None:
    log_writer.run()
    assert [kind.name for kind in kinds(history_of(log_writer.folder))] == ["lr", "loss", "residual"]
    log_writer.healthy(1, 50)
    log_writer.eval(50, 0.7)
    for i in range(3):
        gpu = [{"util_percent": 50.0 + i, "memory_bytes": 2e9, "temperature_c": 60.0}]
        log_writer.add(System(time=log_writer.time + i, step=10 + i, cpu_percent=100.0, rss_bytes=1 << 30, gpu=gpu))
    history = history_of(log_writer.folder)
    names = [kind.name for kind in kinds(history)]
    assert names == [kind.name for kind in KINDS]
    assert drawn("gpu", history).series[0].y.tolist() == [50, 51, 52]
    assert BY_NAME["gpu"].value_at(history, 11) == "51 %"
    assert BY_NAME["auroc"].value_at(history, 50) == "0.700 at step 50"
    assert BY_NAME["loss"].value_at(history, 50) == f"{history.loss[-1]:.4f}"


async def test_missing_records_are_a_gap_and_not_a_line(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 600)
    writer.healthy(1201, 2000)
    async with screen(writer.folder.parent, writer.folder, (100, 30)) as pilot:
        chart = pilot.app.run_screen.charts.charts["loss"]
        lines = [strip.text for strip in chart._strips]
        assert "╳╳╳" in lines[-1]
        middle = slice(8 + 92 * 35 // 100, 8 + 92 * 55 // 100)
        assert {line[middle].strip() for line in lines[:-1]} == {""}


async def test_attempts_are_marked_where_they_began(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 600)
    writer.run(attempt=2, step=400)
    writer.healthy(401, 900)
    async with screen(writer.folder.parent, writer.folder, (100, 40)) as pilot:
        assert "┊2" in pilot.app.run_screen.charts.charts["loss"]._strips[0].text


async def test_as_many_charts_as_fit(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 400)
    writer.eval(400, 0.8)
    (writer.folder / "trainer.log").write_text("step 400\n")
    async with screen(writer.folder.parent, writer.folder, (200, 60)) as pilot:
        await pilot.pause()
        assert shown(pilot) == ["lr", "loss", "residual", "auroc", "grad_norm", "samples_per_s"]  # all that there are
        assert pilot.app.run_screen.output.display
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: shown(pilot) == ["lr", "loss"] and not pilot.app.run_screen.output.display)
        await pilot.resize_terminal(60, 16)
        await until(pilot, lambda: shown(pilot) == ["lr"])
        await pilot.press("tab")
        await pilot.pause()
        assert shown(pilot) == ["loss"]
        await pilot.press("shift+tab", "shift+tab")
        await pilot.pause()
        assert shown(pilot) == ["samples_per_s"]


async def test_a_pattern_chooses_charts_and_escape_shows_all(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 400)
    async with screen(writer.folder.parent, writer.folder, (120, 40)) as pilot:
        await pilot.press("slash", *"gra|samp")
        await pilot.pause()
        assert shown(pilot) == ["grad_norm", "samples_per_s"]
        await pilot.press("enter", "y")  # kept; keys are the screen's again: the LR's axis
        await pilot.pause()
        assert shown(pilot) == ["grad_norm", "samples_per_s"]
        assert pilot.app.run_screen.charts.logarithmic == frozenset()
        await pilot.press("slash", "backspace", *"(")  # no regular expression: plain text, which nothing holds
        await pilot.pause()
        assert shown(pilot) == ["lr"]
        await pilot.press("escape")
        await pilot.pause()
        assert shown(pilot) == ["lr", "loss"]


async def test_a_chart_alone_columns_heights_and_widths_by_key(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 400)
    async with screen(writer.folder.parent, writer.folder, (160, 48)) as pilot:
        run, charts = pilot.app.run_screen, pilot.app.run_screen.charts
        await pilot.press("tab", "tab")
        assert charts.focused == "loss"
        await pilot.press("y")
        assert charts.logarithmic == {"lr", "loss"}
        await pilot.press("z")
        await pilot.pause()
        assert shown(pilot) == ["loss"]
        await pilot.press("z")
        await pilot.pause()
        assert shown(pilot) == ["lr", "loss", "residual"]
        before = charts.charts["loss"].size.height
        await pilot.press("J", "J")
        await pilot.pause()
        assert charts.charts["loss"].size.height > before + 2
        await pilot.press("K", "K")
        await pilot.pause()
        assert abs(charts.charts["loss"].size.height - before) <= 1
        await pilot.press("vertical_line", "vertical_line")
        await pilot.pause()
        assert charts.styles.grid_size_columns == 2
        width = run.side.size.width
        await pilot.press("less_than_sign")
        await pilot.pause()
        assert run.side.size.width == width + 4
        await pilot.press("greater_than_sign", "greater_than_sign", "T")
        await pilot.pause()
        assert run.side.size.width == width - 4 and run.output.display
        await pilot.press("T", "Y", "g", "G", "home", "end")
        await pilot.pause()
        assert not run.output.display


async def test_panes_are_resized_with_the_mouse(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 400)
    async with screen(writer.folder.parent, writer.folder, (160, 48)) as pilot:
        await settled(pilot)  # before the layout is final, the border is not yet where it is about to be
        run = pilot.app.run_screen
        loss, side = run.charts.charts["loss"], run.side
        height, width = loss.size.height, side.size.width
        top, left = loss.region.y, side.region.x
        await pilot.mouse_down(offset=(40, top))
        await pilot.hover(offset=(40, top - 5))
        await pilot.mouse_up(offset=(40, top - 5))
        await until(pilot, lambda: loss.size.height == pytest.approx(height + 5, abs=1))
        await pilot.mouse_down(offset=(left, 40))
        await pilot.hover(offset=(left - 6, 40))
        await pilot.mouse_up(offset=(left - 6, 40))
        await until(pilot, lambda: side.size.width == width + 6)


async def test_the_cursor_reads_out_every_chart_at_the_same_step(writer: LogWriter) -> None:
    writer.run()
    writer.healthy(1, 400)
    async with screen(writer.folder.parent, writer.folder, (200, 60)) as pilot:
        await pilot.press("left")
        await pilot.pause()
        charts = pilot.app.run_screen.charts.charts
        assert "step 400" in str(charts["lr"].border_title)
        for name in ("loss", "residual", "grad_norm"):
            assert str(charts[name].border_subtitle).startswith("step 400: ")
            assert charts[name].data.cursor == 400


async def test_evidence_draws_each_causes_curve_and_goes_to_its_place(frozen: Path) -> None:
    from eegwatch.tui.screens.evidence import EvidenceScreen

    async with screen(frozen.parent, frozen, (120, 40)) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, EvidenceScreen))
        await settled(pilot)
        text = pilot.text()
        assert "a  scheduler_stepped_per_epoch" in text and "b  or scheduler_never_stepped" in text
        assert "step 201 will decide" in text and "ruled out by step" in text
        series = {s.label: s for s in pilot.app.screen.query_one(Chart).data.series if s.label}
        a, b = series["a"], series["b"]
        assert a.x[-1] > 201 and a.y[0] == b.y[0] == pytest.approx(1.2e-4)
        assert a.y[a.x == 205] != b.y[b.x == 205]  # after the epoch's end they part
        await pilot.press("n", "N", "y", "plus", "minus", "g")
        await pilot.pause()
        assert pilot.app.screen is pilot.app.run_screen
        assert pilot.app.run_screen.view.cursor == 1


async def test_n_jumps_from_finding_to_finding(healthy: Path, frozen: Path) -> None:
    async with screen(frozen.parent, frozen, (120, 40)) as pilot:
        await pilot.press("n")
        await pilot.pause()
        assert pilot.app.run_screen.view.cursor == 1 and pilot.app.run_screen.view.width is not None
        await pilot.press("N", "0", "escape")


async def test_without_a_finding_there_is_no_evidence(writer: LogWriter) -> None:
    writer.run(expected=EXPECTED)
    writer.steps(parse(ONE_CYCLE).rate(np.arange(300)))
    async with screen(writer.folder.parent, writer.folder, (120, 40)) as pilot:
        for key in ("enter", "n"):
            await pilot.press(key)
            await pilot.pause()
            assert pilot.app.screen is pilot.app.run_screen
            assert any("nothing is wrong" in n.message for n in pilot.app._notifications)


def test_ascii_stands_in_cell_for_cell() -> None:
    text = "│  3e-3 ┤⢀⡤⠖⠒⣿ ✖ LR … ● ━ ┄ ░ ◆ ▲ ╭─╮ ▁▃█ é"
    plain = to_ascii(text)
    assert plain.isascii() and len(plain) == len(text)
    assert to_ascii("⣿⠁⢀⣀") == "#'.." and to_ascii("✔✖") == "vX"


async def test_without_unicode_nothing_but_ascii_reaches_the_terminal(frozen: Path) -> None:
    from eegwatch.tui.app import WatchApp

    app = WatchApp(frozen.parent, frozen, ascii=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.loaded()
        app.run_screen.redraw()
        await pilot.pause()
        picture = app.export_screenshot()
        lines = app.screen._compositor.render_strips()
        text = "\n".join("".join(segment.text for segment in strip.apply_filter(app._filters[-1], app.screen.styles.background)) for strip in lines)  # fmt: skip
    assert text.isascii() and "X LR STUCK" in text and "learning rate" in text
    assert picture


def test_a_sparkline_ends_with_the_newest() -> None:
    assert sparkline([0.0, 50.0, 100.0], 2) == "▅█"
    assert sparkline([], 10) == "" and sparkline([0.0, 0.0], 5) == "▁▁"


async def test_settings_are_kept_and_a_damaged_file_is_as_none(healthy: Path, tmp_path: Path) -> None:
    from eegwatch.tui import settings
    from eegwatch.tui.app import WatchApp

    async with screen(healthy.parent, healthy, (160, 48)) as pilot:
        pilot.app.theme = "textual-light"
        await pilot.press("less_than_sign")
        await pilot.pause()
    kept = settings.load()
    assert kept.theme == "textual-light" and kept.side_width == 48
    assert WatchApp(healthy.parent, healthy).theme == "textual-light"
    settings.place().write_text("{")
    assert settings.load() == settings.Settings()
    assert settings.place().stat().st_mode & 0o777 == 0o600


async def test_an_unknown_theme_names_those_there_are(healthy: Path) -> None:
    from eegwatch.tui.app import ThemeError, WatchApp

    with pytest.raises(ThemeError, match="textual-light"):
        WatchApp(healthy.parent, healthy, theme="beige")


async def test_a_screen_opened_to_watch_only_commands_nothing(frozen: Path) -> None:
    from eegwatch.tui.app import WatchApp

    app = WatchApp(frozen.parent, frozen, read_only=True)
    async with app.run_test(size=(100, 30)) as pilot:
        await app.loaded()
        await pilot.press("m", "r", "s")
        await pilot.pause()
        assert app.screen is app.run_screen and not (frozen.parent / "control.jsonl").exists()


async def test_texts_are_searched(frozen: Path) -> None:
    (frozen / "trainer.log").write_text("".join(f"line {i}\n" for i in range(500)))
    async with screen(frozen.parent, frozen, (100, 30)) as pilot:
        await pilot.press("t", "slash", *"line 4.7$", "enter")
        await until(pilot, lambda: "of 10" in pilot.text())
        text = pilot.app.screen
        assert [text.lines[row].plain for row in text.found] == [f"line 4{i}7" for i in range(10)]
        assert "line 4" in pilot.text() and "of 10" in pilot.text()
        await pilot.press("n", "N", "g")
        await pilot.pause()
        assert "line 1\n" in pilot.text().replace("│", "\n").replace(" \n", "\n") or "line 1 " in pilot.text()
        await pilot.press("j", "j", "k", "G")
        await until(pilot, lambda: "line 499" in pilot.text())
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert pilot.app.screen is pilot.app.run_screen


async def test_the_charts_are_saved_as_curves(frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with screen(frozen.parent, frozen, (100, 30)) as pilot:
        await pilot.press("P")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
    (picture,) = tmp_path.glob("eegwatch-*-charts.svg")
    assert picture.read_text().startswith("<?xml") and "learning rate" in picture.read_text()


async def test_every_metric_has_a_chart_training_and_validation_in_one(writer: LogWriter) -> None:
    from eegwatch.run.records import Eval, Step

    writer.run(metric_goals={"acc": "max"})
    for n in range(1, 301):
        writer.add(
            Step(time=writer.time + n, step=n, lr=1e-4, loss=0.5, metrics={"train/acc": n / 300, "lr_scale": 1.0})
        )
    for n in (100, 200, 300):
        writer.add(Eval(time=writer.time + n, step=n, loss=0.4, metrics={"val/acc": n / 400, "f1": 0.5}))
    history = history_of(writer.folder)
    by_name = {kind.name: kind for kind in kinds(history)}
    assert {"acc", "f1", "lr_scale"} < set(by_name) and "train/acc" not in by_name
    assert "higher is better" in by_name["acc"].title
    data = by_name["acc"].draw(history, ChartStyle())
    assert [series.kind for series in data.series] == ["noisy", "line"]
    assert [(x, y) for x, y, _ in data.marks] == [(100, 0.25), (200, 0.5), (300, 0.75)]
    assert by_name["acc"].value_at(history, 250) == "0.8333, val 0.5 at step 200"
    async with screen(writer.folder.parent, writer.folder, (160, 48)) as pilot:
        await pilot.press("slash", *"acc|f1")
        await pilot.pause()
        names = [chart.name for chart in pilot.app.run_screen.charts.children if chart.display]
        assert names == ["acc", "f1"] and "acc, higher is better" in pilot.text()


async def test_a_picture_is_of_the_moment_at_which_it_was_asked_for(writer: LogWriter) -> None:
    """A thread that read the history while a resume shortens it met an IndexError."""
    from eegwatch.charts import figure

    writer.run()
    writer.healthy(1, 1000)
    history, style = history_of(writer.folder), ChartStyle()
    charts = figure.prepare(history, [BY_NAME["lr"], BY_NAME["loss"]], style)
    before = figure.draw("run", charts, style)
    history.length = 10  # what a resume does to it
    assert figure.draw("run", charts, style) == before


async def test_a_picture_has_the_runs_name_and_a_legend_in_the_colours_of_its_lines(writer: LogWriter) -> None:
    from eegwatch.charts import figure
    from eegwatch.charts.model import EXPECTED, OBSERVED

    writer.run()
    writer.healthy(1, 400)
    writer.eval(400, 0.8)
    history = history_of(writer.folder)
    charts = figure.prepare(history, kinds(history), ChartStyle(log=frozenset({"lr"})))
    picture = figure.draw(writer.folder.name, charts, ChartStyle()).decode()
    assert writer.folder.name in picture and "optimizer step" in picture
    parts = picture.split('id="legend_')
    assert len(parts) > 3
    for colour in (figure.COLOURS[OBSERVED], figure.COLOURS[EXPECTED]):
        assert f"stroke: {colour}" in parts[1], "the legend has no stroke of the colour of its line"
    assert "samples" in picture and "gradient norm" in picture


def test_a_schedule_that_a_command_changed_is_drawn_from_there_on(log_writer: LogWriter) -> None:
    """`m` on a running script: no new attempt begins, and what is expected from the next step on is another curve."""
    changed = as_dict(resumed(parse(ONE_CYCLE), 100, 3e-4, "anneal", steps_per_epoch=200, force=False))
    log_writer.run()
    log_writer.healthy(1, 100)
    log_writer.add(ScheduleChange(time=log_writer.time, step=100, schedule=changed, command="c1"))
    log_writer.steps(parse(changed).rate(np.arange(100, 150)), first=101)
    history = history_of(log_writer.folder)
    data = drawn("lr", history)
    before, after = [series for series in data.series if series.kind == "dotted"]
    assert before.x[-1] == 100 and after.x[0] == 101 and after.x[-1] == 2000
    assert after.y[0] == pytest.approx(3e-4) and after.y[-1] == pytest.approx(3e-6)
    assert [name for name, _, _ in data.bands] == ["warm-up", "manual anneal"]
    assert "expected 3.00e-4" in readout(history, 101, expected_at(history, 101))
    assert {BY_NAME["residual"].value_at(history, step) for step in (100, 101)} == {"+0 %"}
