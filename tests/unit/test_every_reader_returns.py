"""Whatever a log holds, every reader returns: a right answer or one clear line, never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings

from eegwatch.cli import main
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.run.follow import OwnLog, RunFollower
from tests.unit.odd_logs import Drawn, foreign_logs, run_logs

# ODD_LOGS: how many logs; some hundreds are drawn by make test-full
NUMBER = int(os.environ.get("ODD_LOGS", 600 if os.environ.get("EEGWATCH_FULL") else 50))
MANY = settings(max_examples=NUMBER, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=max(1, NUMBER // 8))  # the screen, half a second each
FEWEST = settings(MANY, max_examples=max(1, NUMBER // 16))  # pictures, seconds each


@contextlib.contextmanager
def run_folder(log: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "logs" / "20261124-120000-odd"
        folder.mkdir(parents=True)
        (folder / "run.jsonl").write_bytes(log)
        yield folder


def no_constant(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def answer(*words: str, codes: tuple[int, ...] = (0, 1, 2)) -> str:
    """What a command line prints; it returns with one of `codes`, and a refusal is one line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    assert code in codes, (code, err.getvalue())
    if code == 2:
        assert err.getvalue().startswith("eegwatch: ") and err.getvalue().count("\n") == 1, err.getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue()
    return out.getvalue()


@MANY
@given(run_logs())
def test_check_export_and_runs(log: bytes) -> None:
    with run_folder(log) as folder:
        answer("check", str(folder))
        for line in answer("check", str(folder), "--json").splitlines():
            found = json.loads(line, parse_constant=no_constant).get("findings", [])
            assert not [finding for finding in found if finding["rule"].endswith("_failed")], found
        answer("export", str(folder), "-o", str(folder / "metrics.csv"))
        (row,) = answer("runs", str(folder.parent), "--json", codes=(0,)).splitlines()
        assert json.loads(row, parse_constant=no_constant)["run_id"] == folder.name
        answer("runs", str(folder.parent), codes=(0,))


@MANY
@example(log=Drawn(39916801).log())  # a rate below 1e-154 in a log that declares no schedule
@given(run_logs())
def test_the_guard_of_the_daemon_takes_a_record_at_a_time(log: bytes) -> None:
    with run_folder(log) as folder:
        follower, diagnosis = RunFollower(OwnLog(folder)), Diagnosis()
        while follower.behind:
            for item in follower.poll(512):
                diagnosis.feed(item)
                diagnosis.clock(1.79e9, training=True)
        assert diagnosis.isolation.failures == {}  # no detector had to be switched off
        assert all(finding.as_dict() for finding in [*diagnosis.findings, *diagnosis.past])
        diagnosis.coverage()
        follower.close()


@FEWEST
@given(run_logs())
def test_the_report_and_the_charts(log: bytes) -> None:
    with run_folder(log) as folder:
        answer("report", str(folder), "-o", str(folder / "report.md"))
        answer("export", str(folder), "-o", str(folder / "charts.svg"), "--x", "time")


@FEW
@given(run_logs())
def test_the_screen(log: bytes) -> None:
    with run_folder(log) as folder:
        assert answer(str(folder), "--once", "--size", "160x50", codes=(0,))


@contextlib.contextmanager
def foreign_file(name: str, content: bytes) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / name
        path.write_bytes(content)
        yield str(path)


@MANY
@given(foreign_logs())
def test_another_programs_log_is_checked_and_exported(log: tuple[str, bytes]) -> None:
    with foreign_file(*log) as path:
        answer("check", path)
        for line in answer("check", path, "--json").splitlines():
            found = json.loads(line, parse_constant=no_constant).get("findings", [])
            assert not [finding for finding in found if finding["rule"].endswith("_failed")], found
        answer("export", path, "-o", f"{path}.export.csv")


@FEWEST
@given(foreign_logs())
def test_another_programs_log_is_drawn(log: tuple[str, bytes]) -> None:
    with foreign_file(*log) as path:
        answer(path, "--once", "--size", "120x40")
        answer("report", path, "-o", f"{path}.report.html")
