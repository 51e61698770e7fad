"""A finding that a person meant: recorded in the log or beside the settings, information from then on, until it changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eegwatch.check import open_run
from eegwatch.cli import main
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import Finding
from eegwatch.run import dismissals
from eegwatch.run.items import items
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import End, Eval, Intent, Run
from eegwatch.run.summary import summarise
from tests.conftest import LogWriter


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def frozen(writer: LogWriter) -> Path:
    """A run whose rate stands still from the first step, and has ended."""
    writer.run()
    writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    writer.add(End(step=150, reason="completed"))
    return writer.folder


def found(path: Path) -> list[Finding]:
    log = open_run(path, None, None)
    try:
        return log.read_to_end().findings
    finally:
        log.close()


@pytest.mark.parametrize("command", ["dismiss", "meant"])  # meant: its name in version 0.2
def test_a_dismissed_finding_no_longer_counts_and_names_the_person(
    command: str, log_writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = frozen(log_writer)
    assert main(["check", str(folder)]) == 1
    assert main([command, str(folder), "lr_stuck", "--reason", "a constant rate on purpose"]) == 0
    capsys.readouterr()
    assert main(["check", "--json", str(folder)]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["severity"] == "info" and finding["meant"]["reason"] == "a constant rate on purpose"
    assert finding["meant"]["by"] == dismissals.person() and dismissals.person() in finding["remedy"]
    (record,) = [r for r in read_all(folder / "run.jsonl", run_decoder()) if isinstance(r, Intent)]
    assert (record.rule, record.since_step, record.step) == ("lr_stuck", 1, 150)
    summary = summarise(folder)
    assert summary.end == "completed" and summary.step == 150


def test_the_same_rule_since_another_step_is_another_finding(log_writer: LogWriter) -> None:
    folder = frozen(log_writer)
    dismissals.append(folder, [("lr_stuck", 1)], 150)
    log_writer.run(attempt=2, step=150, restored={"step": 150, "position": 150.0, "total_steps": 2000})
    log_writer.steps(np.full(100, 1.2e-4), 151, positions=np.full(100, 150.0))
    (finding,) = [f for f in found(folder) if f.bad]
    assert finding.rule.startswith("lr_") and finding.since_step > 150 and finding.intent is None


def test_what_is_said_while_the_log_grows_is_information_from_the_intent_on(log_writer: LogWriter) -> None:
    folder = frozen(log_writer)
    diagnosis = Diagnosis()
    changes = [f for item in items(read_all(folder / "run.jsonl", run_decoder())) for f in diagnosis.feed(item)]
    assert [f.severity for f in changes] == ["error"]
    (told,) = diagnosis.feed(Intent(step=150, rule="lr_stuck", since_step=1, by="ann@box", reason="on purpose"))
    assert told.severity == "info" and told.intent is not None
    assert diagnosis.feed(Intent(step=150, rule="lr_stuck", since_step=1, by="bob@box")) == []


def test_a_log_of_another_program_keeps_what_was_meant_beside_the_settings(tmp_path: Path, settings: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{i},{0.69 + 0.001 * (i % 7)},0.0,{0.5 + 0.01 * (i % 3)}" for i in range(1, 61)]
    path.write_text("\n".join(["step,loss,grad_norm,val_auroc", *rows]) + "\n")
    (finding,) = [f for f in found(path) if f.rule == "grad_zero"]
    written = dismissals.append(path, [(finding.rule, finding.since_step)], 60, reason="frozen on purpose")
    assert written == settings / "eegwatch" / "meant.jsonl" and path.read_text().count("\n") == 61
    (meant,) = [f for f in found(path) if f.rule == "grad_zero"]
    assert meant.severity == "info" and meant.intent is not None and meant.intent.reason == "frozen on purpose"
    other = tmp_path / "other.csv"
    other.write_text(path.read_text())
    assert [f.severity for f in found(other) if f.rule == "grad_zero"] == ["warning"]


def test_a_run_log_that_cannot_be_written_leaves_it_beside_the_settings(log_writer: LogWriter, settings: Path) -> None:
    folder = frozen(log_writer)
    real = folder / "elsewhere.jsonl"
    (folder / "run.jsonl").rename(real)
    (folder / "run.jsonl").symlink_to(real)  # is read, and never written through
    before = real.read_bytes()
    assert dismissals.append(folder, [("lr_stuck", 1)], 150) == settings / "eegwatch" / "meant.jsonl"
    assert real.read_bytes() == before
    assert [f.severity for f in found(folder)] == ["info"]


def test_a_rule_that_found_nothing_is_one_line_that_names_those_that_did(
    log_writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = frozen(log_writer)
    assert main(["dismiss", str(folder), "loss_spike"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "there is lr_stuck" in err


def test_lines_beside_the_settings_that_are_none_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n1,2\n")
    dismissals.append(log, [("loss_spike", 3)], 4, run_id="a")
    with dismissals.side_file().open("a") as file:
        file.write('{"log": 3}\nnot json\n')
    assert [i.since_step for i in dismissals.read(log)] == [3]
    assert dismissals.read(log, "b") == [] and len(dismissals.read(log, "a")) == 1


def test_evidence_that_is_meant_stays_information_when_it_is_raised_again_from_the_log() -> None:
    def told(meant: list[Intent]) -> list[str]:
        diagnosis = Diagnosis()
        diagnosis.intend(meant)
        diagnosis.feed(Run(total_steps=100, steps_per_epoch=10))
        changes = []
        for step in range(10, 310, 10):
            changes += diagnosis.feed(Eval(step=step, balanced_accuracy=0.5 + 0.01 * (step % 3 - 1)))
        return [f.severity for f in changes if f.rule == "metric_stuck"]

    assert told([]) == ["warning"]
    assert told([Intent(step=300, rule="metric_stuck", since_step=1)]) == ["info"]
