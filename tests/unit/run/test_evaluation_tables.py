"""What check, report and charts say of the trainer's evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eegwatch.charts.kinds.logged_metrics import metrics_of
from eegwatch.cli import main
from eegwatch.run.follow import history_of
from eegwatch.run.records import Eval
from eegwatch.run.results.evaluation_tables import lines, section

NUMBERS = {"auroc": 0.913, "average_precision": 0.9, "sensitivity": 0.8, "threshold": -0.25}


def evaluation(step: int, split: str, **more: Any) -> Eval:
    metrics = NUMBERS | {"recording_auroc": 0.95, "recording_sensitivity": 0.7, "recording_threshold": 0.5}
    ci95 = {"auroc": [0.88, 0.94], "recording_auroc": [0.9, 0.98]}
    table = {"window": [[30, 10], [8, 32]], "recording": [[4, 1], [1, 4]]}
    fields = {"metrics": metrics, "ci95": ci95, "confusion": table, "recordings": 10, "subjects": 9, "n": 80} | more
    return Eval(step=step, split=split, auroc=0.913, loss=0.4, **fields)


def test_the_final_model_stands_first_and_the_looks_are_said() -> None:
    evals = [
        evaluation(8, "val"),
        evaluation(4, "eval", model="best", looks=1),
        evaluation(8, "eval", model="final", looks=2),
    ]
    told = lines(evals)
    assert told[0] == (
        "final model (step 8) on the official evaluation set: 80 windows in 10 recordings of 9 subjects: "
        "AUROC 0.913 (0.880 to 0.940) of windows, 0.950 (0.900 to 0.980) of recordings"
    )
    assert told[1].startswith("best model (step 4)") and told[2].endswith("evaluation set 2 times")
    made = section(evals)
    assert made is not None and len(made.tables) == 9  # figures and two matrices, of two models and validation
    caption, header, rows = made.tables[0]
    assert "in brackets 95 % intervals" in caption and header == ["", "windows", "recordings"]
    assert ["sensitivity", "0.800", "0.700"] in rows
    assert ["AUROC", "0.913 (0.880 to 0.940)", "0.950 (0.900 to 0.980)"] in rows


def test_a_figure_that_is_not_there_is_no_number() -> None:
    record = evaluation(8, "eval", model="final", looks=1, metrics={"brier": 0.1}, ci95={})
    assert "AUROC – of windows, – of recordings" in lines([record])[0]
    made = section([record])
    assert made is not None and made.tables[0][2] == [["Brier score", "0.100", "–"]]


def test_other_programs_evaluations_are_no_section() -> None:
    assert section([Eval(step=1, auroc=0.9, metrics={"f1": 0.5})]) is None and lines([]) == []


@pytest.mark.parametrize("ending", ["html", "md"])
def test_check_and_report_show_them(
    log_writer: Any, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    log_writer.run()
    log_writer.healthy(1, 2000)
    log_writer.add(evaluation(2000, "val"), evaluation(2000, "eval", model="final", looks=1))
    assert main(["check", str(log_writer.folder)]) == 0
    assert "AUROC 0.913 (0.880 to 0.940) of windows" in capsys.readouterr().out
    page = tmp_path / f"report.{ending}"
    assert main(["report", str(log_writer.folder), "-o", str(page)]) == 0
    said = page.read_text()
    assert "confusion matrix of recordings" in said and "0.950 (0.900 to 0.980)" in said
    assert said.index("evaluation") < said.index("confusion matrix")


def test_figures_at_a_threshold_have_no_chart(log_writer: Any) -> None:
    log_writer.run()
    log_writer.healthy(1, 10)
    log_writer.add(evaluation(10, "val"))
    assert set(metrics_of(history_of(log_writer.folder))) == {"average_precision", "recording_auroc"}
    log_writer.add(Eval(step=10, metrics={"f1": 0.5}))
    assert "f1" in metrics_of(history_of(log_writer.folder))
