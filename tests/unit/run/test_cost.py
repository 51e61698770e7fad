"""cost.json and optimum.json in `check` and `report`: what the daemon computed is said, and nothing else."""

from __future__ import annotations

from pathlib import Path

from eegwatch.check import open_run
from eegwatch.report import write_report
from eegwatch.run.records import Run
from eegwatch.run.results import cost, optimum
from eegwatch.run.results.cost import Cost, Difference
from eegwatch.run.results.page_sections import lines, sections
from tests.conftest import ONE_CYCLE, LogWriter


def difference(**changes: object) -> Difference:
    fields: dict[str, object] = {
        "model": "final", "split": "eval", "level": "window", "seeds": 5, "faulty": 0.85, "right": 0.87, "cost": 0.02,
        "low": 0.01, "high": 0.03,
    }  # fmt: skip
    return Difference(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_cost_says_whether_the_subjects_can_tell_it_from_none(tmp_path: Path) -> None:
    rows = [difference(), difference(split="val", low=-0.01), difference(seeds=1, low=None, high=None)]
    cost.write(tmp_path, Cost(fault="scheduler_never_stepped", rows=rows, remarks=["a remark"]))
    told = cost.read(tmp_path)
    assert told is not None
    clear, unclear, few, remark = cost.sentences(told)
    assert clear == (
        "scheduler_never_stepped cost +0.0200 evaluation AUROC [+0.0100, +0.0300] over 5 seeds: 0.8500 instead of "
        "0.8700; these subjects tell it from no cost"
    )
    assert "cannot tell it from no cost" in unclear and "validation" in unclear
    assert "this seed" in few and "too few subjects for an interval" in few and remark == "a remark"
    header, cells = cost.table(told)
    assert all(len(row) == len(header) for row in cells) and cells[2][-1] == "too few subjects"


def test_a_run_without_a_fault_has_no_cost_and_a_damaged_file_says_nothing(tmp_path: Path) -> None:
    cost.write(tmp_path, Cost(reason="the learning rate of every step was the declared one"))
    assert lines(tmp_path) == ["no cost of a fault: the learning rate of every step was the declared one"]
    (tmp_path / cost.COST).write_text('{"rows": 3}')
    (tmp_path / optimum.REACH).write_bytes(b"\xff\xfe")
    assert sections(tmp_path) == []


def test_check_and_report_say_what_was_computed(log_writer: LogWriter, tmp_path: Path) -> None:
    log_writer.add(Run(run_id="run", schedule=ONE_CYCLE, total_steps=2000, steps_per_epoch=200))
    log_writer.healthy(1, 40)
    folder = log_writer.folder
    assert open_run(folder, None, None).read_to_end().as_dict()["computed"] == []
    cost.write(folder, Cost(fault="<b>x</b>", rows=[difference()]))
    optimum.write(folder, optimum.OptimumResult(reason="model.probe.type is two_layer: …"))
    checked = open_run(folder, None, None)
    outcome = checked.read_to_end()
    assert len(outcome.as_dict()["computed"]) == 2 and "no bound on what this run could reach" in outcome.text()
    for name in ("report.html", "report.md"):
        write_report(checked, tmp_path / name)
        page = (tmp_path / name).read_text()
        assert "what the fault has cost" in page and "what this run could still reach" in page
        assert "+0.0200" in page and "<b>x" not in page
