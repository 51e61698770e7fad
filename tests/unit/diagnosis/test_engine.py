"""All detectors over a real log, the checklist and the table, the noise band."""

from __future__ import annotations

import numpy as np
import pytest

from eegwatch.diagnosis import checklist as checklists
from eegwatch.diagnosis.checklist import FAIL, PASS, WAIT, WARN, checklist, table
from eegwatch.diagnosis.engine import Diagnosis, worst
from eegwatch.diagnosis.rules.batch_noise import batch_loss_band
from eegwatch.run.history import History
from eegwatch.run.items import items
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import End, Run
from eegwatch.schedule import as_dict, parse, resumed
from tests.conftest import ONE_CYCLE, LogWriter

EXPECTED = {"initial_lr": 1.2e-4, "peak_lr": 3e-3, "final_lr": 3e-6}


def read(writer: LogWriter) -> tuple[History, Diagnosis]:
    history, diagnosis = History(), Diagnosis()
    for item in items(read_all(writer.folder / "run.jsonl", run_decoder())):
        history.append(item)
        diagnosis.feed(item)
    return history, diagnosis


def marks(writer: LogWriter) -> dict[str, str]:
    return {tick.short: tick.mark for tick in checklist(*read(writer))}


def test_a_healthy_finished_run_has_no_finding_and_every_tick(log_writer: LogWriter) -> None:
    log_writer.run(expected=EXPECTED)
    log_writer.healthy(1, 2000)
    for step in (500, 1000, 2000):
        log_writer.eval(step, 0.8 + step / 20_000)
    log_writer.add(End(step=2000, reason="completed"))
    history, diagnosis = read(log_writer)
    assert diagnosis.findings == [] and worst(diagnosis.findings) == ""
    assert marks(log_writer) == {"LR moves": PASS, "warm-up": PASS, "annealing": PASS, "loss": PASS, "AUROC": PASS}
    rows = {row.metric: (row.expected, row.observed, row.mark) for row in table(history, diagnosis)}
    assert rows["initial LR"] == ("1.20e-4", "1.20e-4", PASS)
    assert rows["peak LR"] == ("3.00e-3", "3.00e-3", PASS)
    assert rows["final LR"] == ("3.00e-6", "3.00e-6", PASS)


@pytest.mark.parametrize("most", [7, 4096])
def test_whether_the_warm_up_took_place_is_told_by_equally_spaced_rates_of_it(
    log_writer: LogWriter, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checklists, "MOST_LOOKED_AT", most)
    log_writer.run(lr_precision="printed")
    rates = parse(ONE_CYCLE).rate(np.arange(400))
    for since, mark in ((0, WARN), (199, PASS)):
        wrong = np.where((np.arange(400) >= since) & (np.arange(400) < 200), 1e-5, rates)
        log_writer.steps(wrong, first=1)
        history, _ = read(log_writer)
        assert checklists._warmed_up(history, parse(ONE_CYCLE), 199, "warm-up").mark == mark
        log_writer.run(attempt=2, step=0)


def test_the_frozen_run_fails_the_ticks_it_should(log_writer: LogWriter) -> None:
    log_writer.run(expected=EXPECTED, inject="scheduler_stepped_per_epoch")
    log_writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    history, diagnosis = read(log_writer)
    (finding,) = diagnosis.findings
    assert (finding.rule, finding.severity, finding.since_step) == ("lr_stuck", "error", 1)
    assert finding.cause is not None and finding.cause.name == "scheduler_stepped_per_epoch"
    assert finding.message.startswith("LR stuck at 1.20e-4 since step 1: the scheduler is stepped once per epoch")
    assert "12 times too low on average if nothing is done" in finding.message
    assert marks(log_writer) == {"LR moves": FAIL, "warm-up": FAIL, "annealing": FAIL, "loss": WAIT, "AUROC": WAIT}


def test_a_resume_that_rejoins_the_schedule_resolves_the_finding(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    log_writer.run(attempt=2, step=150, restored={"step": 150, "position": 0.0, "total_steps": 2000})
    log_writer.healthy(151, 400)
    _, diagnosis = read(log_writer)
    assert diagnosis.findings == []


def test_a_manual_lr_is_the_expected_curve_from_then_on(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 300)
    manual = resumed(parse(ONE_CYCLE), 300, 3e-4)
    log_writer.run(as_dict(manual), attempt=2, step=300, overrides=[{"from_step": 300, "lr": 3e-4, "command": "x"}])
    log_writer.steps(manual.rate(np.arange(300, 600)), 301)
    history, diagnosis = read(log_writer)
    assert diagnosis.findings == []
    assert {row.metric: row.mark for row in table(history, diagnosis)}["LR now"] == PASS
    assert {tick.short: tick.mark for tick in checklist(history, diagnosis)}["warm-up"] == PASS  # it was over by then


def test_a_manual_lr_within_the_warm_up_leaves_it(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 100)
    manual = resumed(parse(ONE_CYCLE), 100, 3e-4)
    log_writer.run(as_dict(manual), attempt=2, step=100, overrides=[{"from_step": 100, "lr": 3e-4, "command": "x"}])
    log_writer.steps(manual.rate(np.arange(100, 150)), 101)
    assert marks(log_writer)["warm-up"] == WARN


def test_a_floor_that_is_not_the_one_meant_is_a_config_mismatch_with_the_line_to_write(log_writer: LogWriter) -> None:
    log_writer.run({**ONE_CYCLE, "final_div_factor": 1000.0}, expected=EXPECTED)
    _, diagnosis = read(log_writer)
    (finding,) = diagnosis.findings
    assert (finding.rule, finding.severity) == ("config_mismatch", "warning")
    assert finding.cause is not None and finding.cause.name == "final_div_factor_from_initial"
    assert "final_div_factor: 40" in finding.message


def test_a_loss_that_is_not_finite_is_a_fact_and_resolves(log_writer: LogWriter) -> None:
    log_writer.run()
    lrs = parse(ONE_CYCLE).rate(np.arange(100))
    losses = np.full(100, 0.5)
    losses[50:60] = np.nan
    log_writer.steps(lrs[:70], losses=losses[:70])
    diagnosis, changes = Diagnosis(), []
    for record in read_all(log_writer.folder / "run.jsonl", run_decoder()):
        for item in items([record]):
            changes += diagnosis.feed(item)
    assert [(c.rule, c.severity, c.step) for c in changes] == [
        ("loss_nonfinite", "error", 51),
        ("loss_nonfinite", "resolved", 61),
    ]


def test_a_schedule_that_is_none_is_said_and_nothing_else_is_claimed(log_writer: LogWriter) -> None:
    log_writer.run({"name": "spiral", "total_steps": 100})
    log_writer.steps(np.full(50, 1e-3))
    history, diagnosis = read(log_writer)
    assert [f.rule for f in diagnosis.findings] == ["config_mismatch"]
    assert checklist(history, diagnosis)[0].mark == WAIT


def test_the_range_of_batch_losses_that_the_incident_took_for_a_symptom_is_ordinary_noise() -> None:
    low, high = batch_loss_band(0.79, 32)
    assert low == pytest.approx(0.38, abs=0.01) and high == pytest.approx(0.76, abs=0.01)
    assert batch_loss_band(0.5, 32) == pytest.approx((np.log(2), np.log(2)))
    narrow = batch_loss_band(0.79, 512)
    assert low < narrow[0] < narrow[1] < high


def test_a_run_is_asked_nothing_that_its_log_cannot_answer(log_writer: LogWriter) -> None:
    """Neither warm-up nor annealing without a schedule, no AUROC without one, no batch noise without both."""
    log_writer.add(Run(time=log_writer.time, run_id=log_writer.folder.name, name="theirs"))
    log_writer.steps(1e-3 * (1 - np.arange(400) / 400))
    ticks = checklist(*read(log_writer))
    assert [tick.short for tick in ticks] == ["LR", "loss"] and ticks[1].text == "loss is finite"
    assert "a line from 1e-3 to 0 at step 400" in ticks[0].text and "none is declared" in ticks[0].text
    log_writer.eval(400, 0.8)
    assert [tick.short for tick in checklist(*read(log_writer))] == ["LR", "loss", "AUROC"]
