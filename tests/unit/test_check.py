"""What `eegwatch check` says: of the whole log, what healed included, and what the verdict covers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.cli import main
from eegwatch.run.records import Run
from eegwatch.schedule import parse
from tests.conftest import ONE_CYCLE, LogWriter

CONFIG = """
data: {root_dir: /nowhere, batch_size: 32}
training:
  max_epochs: 10
  scheduler: {name: OneCycleLR, max_lr: 0.003, pct_start: 0.1, div_factor: 25, final_div_factor: 40}
"""


@pytest.fixture
def repaired(log_writer: LogWriter) -> Path:
    """The incident: frozen for 300 steps, then resumed by a person and right ever since."""
    log_writer.run()
    log_writer.steps(np.full(300, 1.2e-4), positions=np.zeros(300))
    log_writer.run(attempt=2, step=300)
    log_writer.healthy(301, 600)
    return log_writer.folder


class Answer:
    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = main(["check", *words])
        self.out, self.err = capsys.readouterr()

    @property
    def object(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


def test_a_fault_that_healed_is_told_and_counts(repaired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Answer(capsys, str(repaired))
    assert text.code == 1
    first, healed = text.out.splitlines()[:2]
    assert first == f"{repaired.name}: nothing wrong now, 1 finding that healed; 600 steps and 0 evaluations read"
    assert healed.startswith("healed   lr_stuck  step 1 to 300 (error): LR stuck at 1.20e-4")
    answer = Answer(capsys, str(repaired), "--json")
    (finding,) = answer.object["findings"]
    assert answer.code == 1 and (finding["rule"], finding["since_step"], finding["until_step"]) == ("lr_stuck", 1, 300)


def test_now_asks_for_the_present_alone(repaired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Answer(capsys, str(repaired), "--now")
    assert text.code == 0 and "healed" not in text.out and "nothing wrong; 600 steps" in text.out
    assert Answer(capsys, str(repaired), "--now", "--json").object["findings"] == []


def test_a_fault_that_healed_within_an_attempt_is_told(
    log_writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    log_writer.run()
    log_writer.healthy(1, 100)
    log_writer.steps(parse(ONE_CYCLE).rate(np.arange(100, 200)) / 10, first=101)
    log_writer.healthy(201, 400)
    answer = Answer(capsys, str(log_writer.folder), "--json")
    assert answer.code == 1
    spans = [(f["since_step"], f["until_step"]) for f in answer.object["findings"] if f["severity"] == "error"]
    assert spans and all(first >= 101 and last <= 203 for first, last in spans)


def test_a_fault_that_is_there_has_no_end(log_writer: LogWriter, capsys: pytest.CaptureFixture[str]) -> None:
    log_writer.run()
    log_writer.steps(np.full(50, 1.2e-4), positions=np.zeros(50))
    (finding,) = Answer(capsys, str(log_writer.folder), "--json").object["findings"]
    assert finding["until_step"] is None


def test_nothing_wrong_says_what_was_checked_and_what_not(
    log_writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    log_writer.run()
    log_writer.healthy(1, 300)
    answer = Answer(capsys, str(log_writer.folder), "--json")
    found = answer.object
    assert answer.code == 0 and {"lr_stuck", "loss_spike", "grad_zero"} <= set(found["checked"])
    assert {"rule": "metric_stuck", "why": "no evaluation with a metric is logged"} in found["skipped"]
    assert not set(found["checked"]) & {one["rule"] for one in found["skipped"]}
    assert found["schedule"]["source"] == "declared" and found["schedule"]["name"] == "one_cycle"
    text = Answer(capsys, str(log_writer.folder)).out
    assert "schedule: one_cycle over 2,000 steps, declared in the log" in text
    assert "not checked: metric_stuck (no evaluation with a metric is logged)" in text


def test_without_a_declared_schedule_that_is_said_and_the_configuration_is_named_as_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = parse(ONE_CYCLE).rate(range(300))
    log = tmp_path / "rows.jsonl"
    log.write_text("".join(f'{{"step":{n},"lr":{lr!r},"loss":0.5}}\n' for n, lr in enumerate(rates.tolist(), 1)))
    found = Answer(capsys, str(log), "--json").object
    assert found["schedule"]["source"] == "found" and "no schedule is declared" in {
        one["why"] for one in found["skipped"]
    }
    lawless = tmp_path / "lawless.jsonl"
    drawn = np.random.default_rng(1).uniform(1e-4, 1e-3, 300).tolist()
    lawless.write_text("".join(f'{{"step":{n},"lr":{lr!r},"loss":0.5}}\n' for n, lr in enumerate(drawn, 1)))
    text = Answer(capsys, str(lawless)).out
    assert "no schedule is declared: whether the learning rate is right cannot be decided" in text
    assert Answer(capsys, str(lawless), "--json").object["schedule"] is None
    config = tmp_path / "users.yaml"
    config.write_text(CONFIG)
    told = Answer(capsys, str(log), "--json", "--config", str(config), "--steps-per-epoch", "200").object
    assert told["schedule"]["source"] == "config" and "lr_stuck" in told["checked"]


def test_no_training_record_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "rows.jsonl"
    log.write_text("".join(f'{{"step":{n},"val_loss":0.5,"val_auroc":0.7}}\n' for n in range(1, 30)))
    text = Answer(capsys, str(log))
    assert text.code == 2 and text.out == "" and text.err.count("\n") == 1
    assert "no training record was read (29 evaluations): nothing could be checked" in text.err
    answer = Answer(capsys, str(log), "--json")
    assert answer.code == 2 and answer.object["steps"] == 0 and "no training record" in answer.object["error"]


def test_a_remedy_names_no_key_of_the_screen(log_writer: LogWriter, capsys: pytest.CaptureFixture[str]) -> None:
    log_writer.run()
    log_writer.steps(np.full(50, 1.2e-4), positions=np.zeros(50))
    text = Answer(capsys, str(log_writer.folder)).out
    assert "(r)" not in text and "(m)" not in text and "eegpt-daemon" not in text  # nobody commands this run
    (log_writer.folder.parent / "daemon.jsonl").touch()
    text = Answer(capsys, str(log_writer.folder)).out
    assert f"eegpt-daemon restart --logs {log_writer.folder.parent}" in text and "(r)" not in text


def test_a_finding_without_a_remedy_has_none_in_the_object(
    log_writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    log_writer.add(Run(schedule=None, total_steps=2000))
    log_writer.steps(np.full(2000, 1e-4), positions=np.full(2000, np.nan), losses=np.full(2000, 0.5))  # a plateau
    answer = Answer(capsys, str(log_writer.folder), "--json")
    assert None in [finding["remedy"] for finding in answer.object["findings"]]


def test_a_finding_that_flaps_is_not_told_a_hundred_times(
    log_writer: LogWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    log_writer.run()
    rates = parse(ONE_CYCLE).rate(np.arange(200))
    rates[(np.arange(200) // 10) % 2 == 1] *= 1.5
    log_writer.steps(rates)
    text = Answer(capsys, str(log_writer.folder)).out
    told = [line for line in text.splitlines() if line.startswith("healed   lr_off_schedule")]
    listed = Answer(capsys, str(log_writer.folder), "--json").object["findings"]
    assert 2 <= len(told) <= 6 and len(listed) >= len(told) - 1


@pytest.mark.parametrize("ending", ["html", "md"])
def test_the_report_of_a_repaired_run_tells_the_same(
    repaired: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"report.{ending}"
    assert main(["report", str(repaired), "-o", str(target)]) == 1
    assert "nothing wrong now, 1 finding that healed" in capsys.readouterr().out
    page = target.read_text()
    assert target.stat().st_mode & 0o777 == 0o600
    assert "Wrong until step 300, nothing wrong since. It was: LR stuck at 1.20e-4" in page
    assert (
        "Nothing wrong" not in page
        and "healed at step 300" in page
        and "LR wrong until step 300, on schedule since" in page
    )
    assert "attempts" in page and "301" in page and re.search("not checked(: |, and why.*)metric_stuck", page)
    assert "restart it, or rejoin the schedule" in page  # a page that is passed on has no keys to press


def test_the_report_of_an_undeclared_log_does_not_vouch_for_its_rate(tmp_path: Path) -> None:
    log = tmp_path / "rows.jsonl"
    log.write_text("".join(f'{{"step":{n},"lr":{1e-3 / n!r},"loss":0.5}}\n' for n in range(1, 200)))
    assert main(["report", str(log), "-o", str(tmp_path / "report.md")]) == 0
    assert "whether the learning rate is right cannot be decided" in (tmp_path / "report.md").read_text()
