"""A run at a glance: the right attempt wherever it began, no descriptor left open, the newest run by its name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegwatch.run.folder import newest_run, runs
from eegwatch.run.records import Finding, Run
from eegwatch.run.summary import HEAD_BYTES, TAIL_BYTES, Summaries, Summary, summarise
from tests.conftest import LogWriter


def test_an_attempt_that_began_in_the_middle_of_a_long_log_is_the_newest(log_writer: LogWriter) -> None:
    log_writer.run(total_steps=5000)
    log_writer.steps(np.full(700, 1e-3))
    log_writer.eval(600, 0.9)
    log_writer.run(attempt=2, step=500, total_steps=6000)
    log_writer.eval(550, 0.7)
    log_writer.add(Finding(rule="lr_stuck", severity="error", step=560, since_step=520, message="stuck"))
    log_writer.steps(np.full(1000, 1e-3), first=501)
    size = (log_writer.folder / "run.jsonl").stat().st_size
    assert size > HEAD_BYTES + TAIL_BYTES + 100_000
    s = summarise(log_writer.folder)
    assert (s.attempt, s.total_steps, s.step) == (2, 6000, 1500)
    assert s.auroc == 0.7 and (s.verdict, s.severity) == ("stuck", "error")
    assert "(attempt 2)" in s.text() and s.state == "unfinished"


@pytest.mark.parametrize("before", [0, 1, 400, 900])
def test_wherever_the_attempt_begins_it_is_found(log_writer: LogWriter, before: int) -> None:
    log_writer.run()
    log_writer.steps(np.full(before, 1e-3))
    log_writer.run(attempt=7, step=before)
    log_writer.steps(np.full(1000 - before, 1e-3), first=before + 1)
    s = summarise(log_writer.folder)
    assert (s.attempt, s.step) == (7, 1000)


def test_words_that_look_like_a_record_are_none(log_writer: LogWriter) -> None:
    log_writer.run(notes=['{"type": "run", "attempt": 9}'])
    log_writer.steps(np.full(500, 1e-3))
    log_writer.add(Finding(rule="x", severity="info", step=1, since_step=1, message='"run" "eval" "finding"'))
    log_writer.steps(np.full(500, 1e-3), first=501)
    assert summarise(log_writer.folder).attempt == 1


def test_of_a_log_that_has_not_changed_nothing_is_read_again(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 5)
    known = Summaries()
    first = known.of(log_writer.folder)
    assert known.of(log_writer.folder) is first
    log_writer.healthy(6, 7)
    assert known.of(log_writer.folder).step == 7


def test_what_is_absent_is_none_and_what_is_nan_is_nan(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.steps([float("nan")], losses=[float("nan")])
    s = summarise(log_writer.folder)
    assert s.lr is not None and np.isnan(s.lr) and s.auroc is None
    with (log_writer.folder / "run.jsonl").open("a") as file:
        file.write('{"type":"step","step":2}\n{"type":"eval","step":2,"loss":0.5}\n')
    s = summarise(log_writer.folder)
    assert (s.step, s.lr, s.loss, s.auroc) == (2, None, None, None) and "nan" not in s.text()


MANY_RUNS = """
import resource, sys
from pathlib import Path
from eegwatch.run.folder import newest_run, runs
from eegwatch.run.summary import summarise
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
logs = Path(sys.argv[1])
print(sum(summarise(folder).step for folder in runs(logs)), newest_run(logs).name)
"""


def test_more_runs_than_a_process_may_open_files(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.steps(np.full(3, 1e-3))
    data = (log_writer.folder / "run.jsonl").read_bytes()
    logs = log_writer.folder.parent
    for number in range(199):
        folder = logs / f"20261125-{number:06d}-run"
        folder.mkdir()
        (folder / "run.jsonl").write_bytes(data)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 64
    done = subprocess.run([sys.executable, "-c", MANY_RUNS, str(logs)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["600", "20261125-000198-run"]


NAMES = st.sampled_from(["20261124-120000-a", "20261124-120000-b", "20261125-120000-a", "zz", "aa", "daemon.jsonl"])


@given(st.dictionaries(NAMES, st.sampled_from(["run", "run", "empty folder", "file", "link"]), max_size=5))
def test_the_newest_run_is_the_last_of_the_list(tmp_path_factory: pytest.TempPathFactory, made: dict[str, str]) -> None:
    logs = tmp_path_factory.mktemp("logs")
    target = tmp_path_factory.mktemp("elsewhere")
    (target / "run.jsonl").touch()
    for at, (name, kind) in enumerate(made.items()):
        path = logs / name
        if kind == "file":
            path.touch()
        elif kind == "link":
            path.symlink_to(target)
        else:
            path.mkdir()
            if kind == "run":
                (path / "run.jsonl").touch()
                os.utime(path / "run.jsonl", (1e9 + 7 * at % 3, 1e9 + 7 * at % 3))
    found = runs(logs)
    assert newest_run(logs) == (found[-1] if found else None)
    assert newest_run(Path(logs / "nowhere")) is None


def test_a_summary_is_plain_json(log_writer: LogWriter) -> None:
    log_writer.add(Run(run_id="x", name="x"))
    assert msgspec.json.decode(msgspec.json.encode(summarise(log_writer.folder)), type=Summary).attempt == 1
