"""TrainCheck beside eegwatch: the draw is fixed, a case becomes a script of its own, and its results are judged alike."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.silent.case import Case, cases
from tests.bench.silent.peer.commands import Failed, TrainCheck, Violation, outcome_of, run, violations
from tests.bench.silent.peer.compare import alarmed, found, only_new
from tests.bench.silent.peer.sample import SETS, draw
from tests.bench.silent.peer.standalone import SEVERAL_PROCESSES, NotStandalone, standalone
from tests.bench.silent.peer.table import markdown
from tests.bench.silent.play import played_once

LEAD, CONTAIN = "FunctionLeadRelation", "APIContainRelation"


def case_called(name: str) -> Case:
    return next(case for case in cases() if case.name == name)


def test_the_draw_takes_each_set_in_turn_and_the_pool_is_of_other_errors() -> None:
    sample = draw(cases(), errors=40, healthy=20, pool=6)
    assert [case.part for case in sample.errors[:4]] == list(SETS)
    assert {part: sum(case.part == part for case in sample.errors) for part in SETS} == dict.fromkeys(SETS, 10)
    assert {part: sum(case.part == part for case in sample.healthy) for part in SETS} == dict.fromkeys(SETS, 5)
    assert not {case.name for case in sample.pool} & {case.name for case in sample.errors}
    assert all(case.is_error for case in [*sample.errors, *sample.pool])


def test_the_draw_is_the_same_again_and_a_longer_one_begins_with_it() -> None:
    short, long = draw(cases(), 12, 4, 2), draw(cases(), 24, 8, 2)
    assert long.errors[:12] == short.errors
    assert long.healthy[:4] == short.healthy


def test_a_draw_of_another_seed_is_another() -> None:
    assert draw(cases(), 12, 4, 2, seed=1).errors != draw(cases(), 12, 4, 2, seed=2).errors


def test_cases_of_several_processes_are_left_out_by_name() -> None:
    assert draw(cases(), 1, 1, 1).apart["two_processes"] == SEVERAL_PROCESSES
    with pytest.raises(NotStandalone, match=SEVERAL_PROCESSES):
        standalone(case_called("two_processes"), faulty=False, seed=0)


def test_a_script_holds_nothing_of_ours_and_names_the_models_that_are_watched() -> None:
    told = standalone(case_called("discriminator_never_cleared"), faulty=True, seed=3)
    assert told.models == ("generator", "critic")
    assert not re.search(r"import.*eegwatch|from (eegwatch|tests)", told.text)
    assert "torch.manual_seed(3)" in told.text
    compile(told.text, "script", "exec")


def test_a_list_of_models_is_no_variable_that_can_be_tracked() -> None:
    assert standalone(case_called("ensemble_in_one_loop"), faulty=False, seed=0).models == ()


def test_an_annotation_does_not_hide_the_model() -> None:
    told = standalone(case_called("second_stage_with_a_new_optimizer"), faulty=False, seed=0)
    assert "    model = Probe()\n" in told.text
    assert told.models == ("model",)


def test_a_script_trains_as_its_case_does(tmp_path: Path) -> None:
    case = case_called("zero_grad_missing")
    script = tmp_path / "script.py"
    script.write_text(standalone(case, faulty=True, seed=0).text, encoding="utf-8")
    printed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    weights, _ = played_once(case, faulty=True, watched=False)
    assert outcome_of(printed) == hashlib.sha256(weights.numpy().tobytes()).hexdigest()


def test_only_what_the_reference_does_not_violate_counts_as_found() -> None:
    noise, real = Violation("a", LEAD, "order", 0), Violation("b", CONTAIN, "step changes data", 1)
    assert only_new([noise, real], [noise]) == [real]


def test_an_order_of_calls_is_found_and_can_be_left_out() -> None:
    record = {"faulty": [[LEAD, "order", 0]], "reference": [[CONTAIN, "step changes data", 1]]}
    assert found(record)
    assert not found(record, without_orders=True)
    assert alarmed(record)
    assert alarmed(record, without_orders=True)
    assert not found({"faulty": []})


def test_the_failures_that_traincheck_writes_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "trace"
    folder.mkdir(parents=True)
    (folder / "failed.log").write_text(
        '{\n    "invariant": {\n        "relation": "APIContainRelation",\n        "params": [\n            '
        '{\n                "api_full_name": "torch.optim.sgd.SGD.step"\n            }\n        ],\n        '
        '"precondition": null\n    },\n    "trace": [\n        {\n            "meta_vars.step": 3\n        },\n        '
        '{\n            "meta_vars.step": NaN\n        }\n    ]\n}\n'
        '{\n    "invariant": {\n        "relation": "FunctionLeadRelation",\n        "params": [],\n        '
        '"text_description": "a precedes b",\n        "precondition": null\n    },\n    "trace": []\n}\n',
        encoding="utf-8",
    )
    first, second = violations(tmp_path / "results", tmp_path / "elsewhere" / "trace")
    assert (first.relation, first.step) == (CONTAIN, 3)
    assert "SGD.step" in first.text
    assert (second.text, second.step) == ("a precedes b", -1)
    assert first.key != second.key


def test_a_command_that_fails_says_which_and_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="collect_trace: exit code 1: .*No module named"):
        TrainCheck(Path(sys.executable)).collect(tmp_path / "script.py", (), tmp_path / "trace")


def test_a_command_is_ended_at_its_limit(tmp_path: Path) -> None:
    ran = run([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, limit=0.1)
    assert ran.code == -9


def test_the_tables_count_what_did_not_run_apart() -> None:
    ours = {"verdict": "proved", "step": 1, "said": [], "of_reference": [], "same": True}
    begun = {"kind": "error", "set": "first", "cpu": {"bare": [1.0]}, "bytes": {}, "ours": ours}
    record = {**begun, "name": "a", "same": [True], "faulty": [[LEAD, "order", 2]], "reference": [], "invariants": 7}
    crashed = {**begun, "name": "b", "same": [], "failure": "check: ended after 900 s"}
    told = markdown([record, crashed], draw(cases(), 2, 0, 0))
    assert "| errors played | 1 of 2 | 2 of 2 |" in told
    assert "| found, of those that both played | 1 of 1 | 1 of 1 |" in told
    assert "| of these by more than the order of calls / proved | 0 of 1 | 1 of 1 |" in told
    assert "| `a` | first | 1 (0) | 2 | 0 of 7 | proved | 1 |" in told
    assert "| `b` | first | did not run | – | – | proved | 1 |" in told
    assert "- `b` did not run with TrainCheck: check: ended after 900 s" in told
