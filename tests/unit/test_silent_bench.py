"""The benchmark of silent errors: its cases have sources and a truth, its errors are real, its tables leave nothing out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eegwatch.cli import main
from tests.bench.silent.case import PARTS, Case, cases
from tests.bench.silent.judge import FACT, MISSED, OTHER, PROVED, Result, Said, said_of
from tests.bench.silent.play import play, played_once
from tests.bench.silent.script import Script
from tests.bench.silent.table import markdown, summary, text
from tests.bench.silent.traincheck import LIST, REPRODUCTIONS

PAGE = Path(__file__).parents[2] / "docs" / "silent_benchmark.md"

SAMPLE = [  # those that need neither processes nor worker processes, one of each kind
    "zero_grad_missing",
    "step_after_scaler_step",
    "mean_of_means",
    "clip_before_unscale",
    "optimizer_built_before_the_copy",
    "weights_that_are_not_contiguous",
    "frozen_with_a_gradient_left",
    "moments_of_other_parameters",
    "averaged_weights_left_in",
    "seeded_in_the_epoch_loop",
    "subjects_in_both_splits",
    "dropout_in_evaluation",
    "validation_leaves_gradients",
    "clipped_at_each_micro_batch",
    "frozen_parameters_decay",
    "masters_copied_before_the_load",
    "sliding_windows_shuffled",
    "clip_argument_ignored",
    "schedule_an_epoch_behind",
    "requires_grad_set_on_modules",
    "resume_from_the_average",
    "split_drawn_anew_on_resume",
]


def case_called(name: str) -> Case:
    return next(case for case in cases() if case.name == name)


def test_each_error_says_where_it_was_reported_and_what_may_be_said_of_it() -> None:
    for case in cases():
        assert case.what, case.name
        if case.is_error:
            assert re.fullmatch(r"https://\S+", case.source), case.name
            assert case.first >= 0, case.name


def test_each_error_is_reported_at_an_address_of_its_own() -> None:
    sources = [case.source for case in cases() if case.is_error]
    assert len(sources) == len(set(sources))


@pytest.mark.parametrize("part", PARTS)
def test_each_set_has_thirty_errors_and_thirty_healthy_trainings(part: str) -> None:
    members = cases(part)
    assert sum(case.is_error for case in members) >= 30
    assert sum(not case.is_error for case in members) >= 30


def test_the_page_lists_every_case_and_every_row_of_traincheck() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for case in cases():
        assert f"| `{case.name}` | {case.what.replace('|', '/')} |" in page, f"{case.name}: run --markdown for the page"
        assert case.source in page or not case.is_error, case.name
    for row in LIST:
        assert f"[{row.name}]({REPRODUCTIONS}{row.name}) | {row.mechanism} |" in page, row.name


@pytest.mark.parametrize("name", SAMPLE)
def test_an_error_changes_what_comes_out_and_its_reference_comes_out_the_same_twice(name: str) -> None:
    case = case_called(name)
    reference, _ = played_once(case, faulty=False, watched=False)
    again, _ = played_once(case, faulty=False, watched=False)
    faulty, _ = played_once(case, faulty=True, watched=False)
    assert torch.equal(reference, again)
    assert not torch.equal(reference, faulty)


def test_a_finding_counts_by_its_rule_and_its_severity() -> None:
    case = case_called("decay_schedule_never_applied")
    right, other = Said("off_schedule:weight_decay", "error", 2, 2, ""), Said("loss_spike", "warning", 9, 9, "")

    def verdict(*said: Said) -> str:
        return Result(case.name, said, (), True, True, 0.0).verdict(case)

    assert verdict(right, other) == PROVED
    assert verdict(Said("off_schedule", "warning", 2, 2, "")) == FACT
    assert verdict(other) == OTHER
    assert verdict() == MISSED


def test_a_warning_of_a_healthy_training_is_a_fact_and_an_error_is_an_error() -> None:
    case = case_called("lora")
    assert Result(case.name, (Said("no_gradient", "warning", 1, 1, ""),), (), True, False, 0.0).verdict(case) == FACT
    assert Result(case.name, (Said("update_lost", "error", 1, 1, ""),), (), True, False, 0.0).verdict(case) == "error"


def test_the_tables_hold_every_case_and_every_row_of_traincheck() -> None:
    pairs = [(case, Result(case.name, (), (), True, True, 0.0)) for case in cases()]
    plain, page = text(pairs), markdown(pairs)
    for case, _ in pairs:
        assert case.name[:41] in plain
        assert case.what in page
    for row in LIST:
        assert row.name in plain
        assert row.name in page
        assert bool(row.cases) != bool(row.why), row.name
        assert all(case_called(name).is_error for name in row.cases)
    assert any("0 of" in line for line in summary(pairs))


def test_a_mechanism_of_an_earlier_set_counts_in_one_score_and_not_in_the_other() -> None:
    old, new = case_called("zero_grad_missing"), case_called("mean_of_means")
    told = Said("gradients_not_cleared", "error", 2, 2, "")
    found = Result(old.name, (told,), (), True, True, 0.0)
    missed = Result(new.name, (), (), True, True, 0.0)
    lines = list(summary([(replace(old, again=True), found), (new, missed)]))
    assert lines[0].startswith("first set: 1 of 2 errors found (50%)")
    assert lines[1] == "first set: 0 of the 1 whose mechanism no earlier set has"
    assert not any("no earlier set" in line for line in summary([(old, found), (new, missed)]))


def test_the_verdict_is_the_one_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(tmp_path, watched=True)
    case_called("decay_schedule_never_applied").play(script, True)
    script.close()
    main(["check", "--json", str(script.logs)])
    told = json.loads(capsys.readouterr().out)
    bad = {(f["rule"], f["severity"]) for f in told["findings"] if f["severity"] in ("error", "warning")}
    assert bad == {(said.rule, said.severity) for said in said_of(script.logs)}
    assert any(rule.startswith("off_schedule") for rule, _ in bad)


def test_a_case_is_played_four_times_and_the_watched_outcomes_are_the_same_bits() -> None:
    case = case_called("zero_grad_missing")
    result = play(case)
    assert (result.verdict(case), result.step(case)) == (PROVED, 2)
    assert result.of_the_reference() == "clean"
    assert result.identical and result.real and not result.crash


def test_a_script_that_raises_is_a_result(tmp_path: Path) -> None:
    def raises(script: Script, faulty: bool) -> torch.Tensor:
        raise ZeroDivisionError("no batches")

    case = Case("raises", "first", "", "", (), 0, raises)
    assert "no batches" in play(case).crash
    assert play(case).verdict(case) == "crashed"
