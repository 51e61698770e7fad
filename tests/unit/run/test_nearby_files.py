"""Hyperparameters beside another program's log: they declare its schedule only where its first records agree."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from eegwatch.check import Checked, open_run
from eegwatch.schedule import parse

ARGS = {"learning_rate": 1e-3, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 20, "max_steps": 400}
RIGHT = parse({"name": "constant", "lr": 1e-3, "warmup_steps": 20, "total_steps": 400}).rate(np.arange(401))


def checked(folder: Path, rates: np.ndarray, name: str = "args.json", args: object = ARGS) -> Checked:
    history = [{"step": n, "learning_rate": float(rates[n]), "loss": 2.0} for n in range(2, 401, 2)]
    state = {"log_history": history, "max_steps": 400, "global_step": 400, "num_train_epochs": 1}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps(state))
    if name:
        (folder / name).write_text(json.dumps(args))
    return open_run(folder / "trainer_state.json", None, None).read_to_end()


@pytest.mark.parametrize("lag", [0, 1])
def test_a_file_beside_the_log_declares_its_schedule(tmp_path: Path, lag: int) -> None:
    rates = np.concatenate([RIGHT[:1], RIGHT])[1 - lag :]
    outcome = checked(tmp_path / "run", rates)
    assert outcome.schedule is not None and outcome.schedule["source"] == "config"
    assert outcome.schedule["name"] == "constant" and not outcome.wrong


def test_a_fault_after_its_first_records_is_found(tmp_path: Path) -> None:
    rates = RIGHT.copy()
    rates[300:] = 1e-4
    outcome = checked(tmp_path / "run", rates)
    assert outcome.wrong and outcome.findings[0].rule.startswith("lr_")
    assert not checked(tmp_path / "alone", rates, name="").wrong  # undeclared, it could be meant


def test_a_file_of_another_run_raises_nothing_and_is_said(tmp_path: Path) -> None:
    outcome = checked(tmp_path / "run", RIGHT, args=ARGS | {"learning_rate": 2e-3})
    assert not outcome.wrong and (outcome.schedule is None or outcome.schedule["source"] == "found")
    (remark,) = outcome.remarks()
    assert "args.json is not taken for the schedule" in remark and "--config" in remark


@pytest.mark.parametrize("args", [{"hidden_size": 768}, {"learning_rate": "x", "max_steps": 3}, [], "text", None])
def test_a_file_that_is_no_such_thing_is_passed_over(tmp_path: Path, args: object) -> None:
    outcome = checked(tmp_path / "run", RIGHT, "config.json", args)
    assert not outcome.wrong and outcome.remarks() == []


def test_a_log_that_was_left_while_its_rate_rose_is_all_warm_up(tmp_path: Path) -> None:
    """detectron2's default of 1,000 warm-up steps in a run of 1,000: the rate never reaches what was asked for."""
    log = tmp_path / "metrics.json"
    rows = [{"iteration": n, "lr": 2.5e-4 * n / 1000, "total_loss": 1.0} for n in range(19, 1000, 20)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(log, (1.6e9, 1.6e9))
    (finding,) = (f for f in open_run(log, None, None).read_to_end().findings if f.rule == "warmup_never_ends")
    assert finding.severity == "info" and "all warm-up" in finding.message
