"""The preflight: every trap that users met and a configuration can hold, each with the line to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from eegpt_daemon.cli import main
from eegpt_daemon.preflight import preflight

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").glob("*.yaml"))
EXPECTED = {"initial_lr": 1.2e-4, "peak_lr": 3e-3, "final_lr": 3e-6}
GOOD: dict[str, Any] = {
    "data": {"root_dir": "/tmp", "scaling": "zscore"},
    "model": {"backbone": {"preset": "small"}},
    "training": {
        "max_epochs": 50,
        "scheduler": {"name": "one_cycle", "max_lr": 3e-3, "pct_start": 0.1, "div_factor": 25, "final_div_factor": 40},
        "early_stopping": {"patience": 10},
    },
    "expected": EXPECTED,
}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    tree = json.loads(json.dumps(GOOD))
    for key, value in changes.items():
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def write(tmp_path: Path, changes: dict[str, Any]) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(changed(changes)))
    return path


def test_a_sound_configuration_is_ready_and_equals_torch_everywhere(tmp_path: Path) -> None:
    outcome = preflight(write(tmp_path, {}), steps_per_epoch=100)
    assert outcome.ok and outcome.problems == []
    assert outcome.compared == outcome.total_steps == 5000
    assert outcome.rates == pytest.approx(EXPECTED)
    text = outcome.text()
    assert "ready" in text and "warm-up 0–499" in text and "┤" in text


def test_a_series_of_seeds_is_said_with_its_length(tmp_path: Path) -> None:
    outcome = preflight(write(tmp_path, {"experiment.seeds": 3, "experiment.seed": 7}), steps_per_epoch=100)
    assert outcome.as_dict()["seeds"] == [7, 8, 9]
    assert (
        "a series of 3 seeds (7, 8, 9), one run after another: 15,000 steps in all; split_seed 7 draws the validation "
        "subjects of all"
    ) in outcome.text()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_configuration_is_ready(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGB_DATA_ROOT", "/data")
    assert preflight(path).ok


TRAPS = [
    ({"training.scheduler.final_div_factor": 1000}, "training.scheduler.final_div_factor", "final_div_factor: 40"),
    ({"training.scheduler.div_factor": 10}, "training.scheduler.div_factor", "div_factor: 25"),
    ({"training.scheduler.max_lr": 1e-3}, "training.scheduler.max_lr", "max_lr: 3e-3"),
    ({"training.scheduler.cycle_momentum": True}, "training.scheduler.cycle_momentum", "cycle_momentum: false"),
    ({"training.scheduler.epochs": 20}, "training.scheduler.epochs", "epochs: 50"),
    (
        {"training.scheduler.total_steps": 20_000, "training.gradient_accumulation_steps": 4},
        "training.scheduler.total_steps",
        "total_steps: 5000",
    ),
    ({"training.scheduler.pct_start": 0.0001}, "training.scheduler.pct_start", "pct_start: 0.1"),
    ({"training.early_stopping.patience": 60}, "training.early_stopping.patience", "patience: 10"),
    ({"training.early_stopping.monitor": "val_loss"}, "training.early_stopping.mode", "mode: min"),
    ({"training.checkpoint_minutes": 180}, "training.checkpoint_minutes", "checkpoint_minutes: 10"),
    ({"data.sampling_rate": 200}, "data.sampling_rate", "sampling_rate: 256"),
    ({"data.window_duration": 4.1}, "data.window_duration", "window_duration: 4"),
    ({"data.val_fraction": 0.0}, "data.val_fraction", "val_fraction: 0.15"),
    ({"model.probe.input_dim": 512}, "model.probe.input_dim", "input_dim: 256"),
    (
        {"training.scheduler": {"name": "cosine", "max_lr": 3e-3, "warmup_steps": 9000}},
        "training.scheduler.warmup_steps",
        "warmup_steps: 500",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "line"), TRAPS, ids=[key for _, key, _ in TRAPS])
def test_a_trap_is_an_error_with_the_line_to_write(
    tmp_path: Path, changes: dict[str, Any], key: str, line: str
) -> None:
    outcome = preflight(write(tmp_path, changes), steps_per_epoch=100)
    mine = [p for p in outcome.problems if p.key == key]
    assert mine and mine[0].severity == "error", outcome.problems
    assert mine[0].write == line
    assert not outcome.ok


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training.optimizer.lr": 1e-3}, "training.optimizer.lr"),
        ({"data.scaling": "millivolt"}, "data.scaling"),
        ({"training.scheduler.unit": "epoch"}, "training.scheduler.unit"),
        ({"inject": "scheduler_stepped_per_epoch"}, "inject"),
        ({"data.root_dir": "/nowhere"}, "data.root_dir"),
    ],
)
def test_what_may_be_meant_is_a_warning(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    outcome = preflight(write(tmp_path, changes), steps_per_epoch=100)
    assert outcome.ok
    assert key in [p.key for p in outcome.problems if p.severity == "warning"]


def test_the_line_it_says_to_write_is_the_remedy(tmp_path: Path) -> None:
    wrong = preflight(write(tmp_path, {"training.scheduler.final_div_factor": 1000}))
    key, value = wrong.problems[0].write.split(": ")
    assert preflight(write(tmp_path, {f"training.scheduler.{key}": float(value)})).ok


def test_check_fails_with_exit_code_1_and_start_refuses_until_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, {"training.scheduler.final_div_factor": 1000})
    assert main(["check", "--config", str(path), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False and answer["rates"]["final_lr"] == pytest.approx(1.2e-7)
    assert answer["problems"][0]["write"] == "final_div_factor: 40"
    logs = tmp_path / "logs"
    assert main(["start", "--config", str(path), "--logs", str(logs)]) == 78
    refused = capsys.readouterr().err
    assert "final_div_factor: 40" in refused and refused.count("\n") == 1
    assert not logs.exists()


def test_a_run_of_millions_of_steps_is_walked_in_seconds(tmp_path: Path) -> None:
    outcome = preflight(write(tmp_path, {}), steps_per_epoch=58_285)
    assert outcome.total_steps == 2_914_250 and outcome.compared == 25_000 and outcome.ok
