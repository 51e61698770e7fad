"""Runs that branched off, as a tree; what was commanded about their rates; a branch that RunLog begins."""

from __future__ import annotations

from pathlib import Path

from eegwatch import RunLog
from eegwatch.cli import main
from eegwatch.run.branches import changes, family, in_tree
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Run, ScheduleChange
from eegwatch.run.summary import summarise


def test_branches_stand_below_the_run_that_they_came_from() -> None:
    parents = {"d": "b", "c": None, "b": "a", "a": None, "e": "a"}
    assert in_tree("edcba", parents) == [(0, "c"), (0, "a"), (1, "e"), (1, "b"), (2, "d")]
    assert in_tree("dc", parents) == [(0, "d"), (0, "c")]  # its parent is not listed
    assert sorted(in_tree("xy", {"x": "y", "y": "x"})) == [(0, "x"), (1, "y")]  # a ring is listed all the same


def test_a_family_is_what_shares_an_origin() -> None:
    parents = {"d": "b", "c": None, "b": "a", "a": None, "e": "a"}
    assert family("d", parents) == family("a", parents) == {"a", "b", "d", "e"}
    assert family("c", parents) == {"c"}


def test_changes_of_the_rate_are_told_in_words(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "run.jsonl")
    cosine = {"name": "cosine", "total_steps": 100, "max_lr": 1e-3, "unit": "step"}
    log.append(Run(run_id="x", overrides=[{"command": "a", "from_step": 10, "lr": 3e-4, "then": "hold"}]))
    log.append(ScheduleChange(step=20, schedule=cosine, command="b"))
    log.append(ScheduleChange(step=30, schedule=None, command="c"))
    assert changes(tmp_path) == [
        "from step 11: 3.00e-4, then hold", "from step 21: the declared schedule",
        "from step 31: the script's own scheduler",
    ]  # fmt: skip


def test_a_run_that_branches_off_in_a_script_says_from_where(tmp_path: Path, capsys: object) -> None:
    with RunLog(tmp_path, "first") as first:
        first.step(loss=1.0, lr=1e-3)
    with RunLog(tmp_path, "second", parent=first.folder, step=1) as second:
        second.step(loss=0.5, lr=1e-3)
    s = summarise(second.folder)
    assert (s.parent, s.parent_step, s.step, s.attempt) == (first.folder.name, 1, 2, 1)
    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()  # type: ignore[attr-defined]
    assert lines[1].startswith(first.folder.name) and lines[2].startswith(f"└ {second.folder.name} (from step 1)")
