"""A fixed sample of mutants of a part of the project, and which of them the tests kill.

`python -m tests.bench.mutants map --out FOLDER` runs the tests of the part (`--part core`, or `silent`: the watcher and
its rules) once under coverage (needs `coverage` and `pytest-cov`) and keeps which test executes which line.
`… run --out FOLDER [--count 200]` runs for each mutant, in a copy of the tree, the tests that execute its line,
quickest first, until one fails, then the slow ones; it appends a line to `results.jsonl` and does not run again what is
there.
`… same --out OTHER --before FOLDER/results.jsonl --commit COMMIT` makes the mutants that were killed in the tree of
another commit, by file and expression, and runs for each the test that killed it, all tests of that file where it
passes, and all tests of the part where they pass. Files and tests that were renamed since are followed as git does.

The sample is drawn with SEED from the tree of `--tree` (this one, if not given): the same tree gives the same mutants.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.mutants.operators import Mutant, mutants_of

Key = tuple[str, str, int]  # file, what is changed, which of the equal ones
ROOT = Path(__file__).parents[3]
SEED = 14


@dataclass(frozen=True)
class Part:
    """A part of the project: what is mutated, the tests of it, and those of half a minute each, which come last."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()  # every line that they execute is executed by others too


PARTS = {
    "core": Part(
        ("eegwatch/schedule", "eegwatch/diagnosis", "eegwatch/run/log.py", "eegwatch/run/control.py",
         "daemon/eegpt_daemon/trainer/checkpoint.py"),
        ("tests/unit/schedule", "tests/unit/run", "tests/unit/diagnosis", "tests/unit/daemon/test_checkpoint.py",
         "tests/unit/test_check.py", "tests/unit/test_runlog.py", "tests/unit/test_used_rates.py"),
        ("tests/unit/diagnosis/test_fault_corpus.py",
         "tests/unit/diagnosis/test_evidence.py::test_findings_are_the_same_read_at_once_and_as_the_log_grows"),
    ),
    "silent": Part(
        ("eegwatch/watching", "eegwatch/diagnosis/silent"),
        ("tests/unit/watching", "tests/unit/diagnosis/test_saved_state.py"),
        ("tests/unit/test_silent_bench.py",),
    ),
}  # fmt: skip
LONGEST_CPU_S = 240  # a mutant that makes a loop endless is killed by the clock; a busy machine kills none
LONGEST_S = 3600.0  # one that waits for ever uses no processor


def files_of(tree: Path, part: Part) -> list[Path]:
    return [
        file
        for place in part.files
        for file in ([tree / place] if place.endswith(".py") else sorted((tree / place).rglob("*.py")))
    ]


def copy_of(tree: Path, copy: Path, part: Part) -> Path:
    """The tree in which mutants are tried; a run that was killed may have left one in it."""
    if not copy.exists():
        left_out = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".mypy_cache", "logs")
        shutil.copytree(tree, copy, ignore=left_out)
    for file in files_of(tree, part):
        shutil.copyfile(file, copy / file.relative_to(tree))
    return copy


def sample(tree: Path, count: int, part: Part) -> list[Mutant]:
    """`count` mutants, the same for the same tree."""
    every = [mutant for file in files_of(tree, part) for mutant in mutants_of(file, str(file.relative_to(tree)))]
    return sorted(
        random.Random(SEED).sample(every, count), key=lambda mutant: (mutant.path, mutant.line, mutant.column)
    )


def environment(tree: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "daemon"), os.environ.get("MUTANTS_SITE", "")]),
        "CI": "1",  # in trees before 26 November: hypothesis tries the same examples for every mutant
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def pytest_of(tree: Path, *words: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *words]
    limited = partial(resource.setrlimit, resource.RLIMIT_CPU, (LONGEST_CPU_S, LONGEST_CPU_S)) if timeout else None
    return subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=timeout, preexec_fn=limited
    )


def make_map(tree: Path, out: Path, part: Part) -> None:
    deselected = [word for test in part.slow for word in ("--deselect", test)]
    measured = ["-p", "pytest_cov", "--cov=eegwatch", "--cov=eegpt_daemon", "--cov-context=test", "--cov-report="]
    os.environ["COVERAGE_FILE"] = str(out / "coverage")
    done = pytest_of(tree, *measured, "--durations=0", "-vv", *part.tests, *deselected)
    (out / "cov.out").write_text(done.stdout + done.stderr)


def tests_of_lines(tree: Path, out: Path) -> dict[tuple[str, int], list[str]]:
    """(file, line) -> the tests that execute it, quickest first."""
    from coverage import CoverageData

    seconds: dict[str, float] = defaultdict(float)
    for found in re.finditer(r"^([\d.]+)s (?:call|setup) +(tests/\S.*)$", (out / "cov.out").read_text(), re.MULTILINE):
        seconds[found[2]] += float(found[1])
    data = CoverageData(str(out / "coverage"))
    data.read()
    tests: dict[tuple[str, int], list[str]] = {}
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            names = {context.split("|")[0] for context in contexts if context}
            measured = Path(file)
            path = str(measured.relative_to(tree)) if measured.is_relative_to(tree) else file
            tests[path, line] = sorted(names, key=lambda name: (seconds.get(name, 0.0), name))
    return tests


def of_file(tests: dict[tuple[str, int], list[str]], path: str) -> list[str]:
    """For a line that runs when its module is imported: the tests that execute most lines of the file."""
    lines: dict[str, int] = defaultdict(int)
    for (file, _), names in tests.items():
        if file == path:
            for name in names:
                lines[name] += 1
    return sorted(lines, key=lambda name: (-lines[name], name))


def verdict(copy: Path, mutant: Mutant, tests: list[str]) -> dict[str, Any]:
    """Run the tests on the mutant; the file is as before afterwards."""
    file = copy / mutant.path
    before = file.read_text()
    about = {
        "path": mutant.path,
        "line": mutant.line,
        "column": mutant.column,
        "what": mutant.what,
        "nth": mutant.nth,
        "tests": len(tests),
    }
    if not tests:
        return about | {"killed": False, "by": None}
    file.write_text(mutant.apply(before))
    began = time.monotonic()
    try:
        done = pytest_of(copy, "-x", *tests, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return about | {"killed": True, "by": "the clock", "seconds": LONGEST_S}
    finally:
        file.write_text(before)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return about | {"killed": True, "by": "the clock", "seconds": round(time.monotonic() - began, 1)}
    if re.search(r"^ERROR: (?:not found|file or directory not found)", done.stdout + done.stderr, re.MULTILINE):
        return about | {"killed": False, "by": None}  # the test has another name now
    failed = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    by = failed[1] if failed else None if done.returncode == 0 else f"pytest's code {done.returncode}"
    return about | {"killed": done.returncode != 0, "by": by, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["map", "run", "same"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--part", choices=tuple(PARTS), default="core")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--commit", default="HEAD", help="of the tree that --before was made in")
    parser.add_argument("--quick", action="store_true", help="without the two slow tests: fewer are killed")
    arguments = parser.parse_args()
    tree, out, part = arguments.tree.resolve(), arguments.out.resolve(), PARTS[arguments.part]
    out.mkdir(parents=True, exist_ok=True)
    if arguments.action == "map":
        make_map(tree, out, part)
        return 0
    results = out / "results.jsonl"
    done = {key(result) for result in json_lines(results)} if results.exists() else set()
    copy = copy_of(tree, out / "tree", part)
    with results.open("a") as file:
        for result in (
            same(tree, copy, arguments, done, part) if arguments.before else fresh(tree, copy, arguments, done, part)
        ):
            file.write(json.dumps(result) + "\n")
            file.flush()
    everything = json_lines(results)
    killed = sum(result["killed"] for result in everything)
    print(f"{killed} of {len(everything)} mutants killed")
    return 0


def fresh(
    tree: Path, copy: Path, arguments: argparse.Namespace, done: set[Key], part: Part
) -> Iterator[dict[str, Any]]:
    tests = tests_of_lines(tree, arguments.out.resolve())
    mutants = sample(tree, arguments.count, part)
    random.Random(SEED).shuffle(mutants)  # a run that is cut short has tried all parts alike
    for mutant in mutants:
        if (mutant.path, mutant.what, mutant.nth) in done:
            continue
        result = verdict(copy, mutant, tests.get((mutant.path, mutant.line)) or of_file(tests, mutant.path))
        yield result if result["killed"] or arguments.quick else verdict(copy, mutant, list(part.slow))


def same(tree: Path, copy: Path, arguments: argparse.Namespace, done: set[Key], part: Part) -> Iterator[dict[str, Any]]:
    """What was killed before; a mutant whose expression is no longer there is named and left out."""
    commit = arguments.commit
    now = renamed(tree, commit)
    for known in json_lines(arguments.before):
        path = now.get(known["path"], known["path"])
        if not known["killed"]:
            continue
        there = mutants_of(tree / path, path) if (tree / path).exists() else []
        mutant = counterpart([m for m in there if m.what == known["what"]], tree / path, known, tree, commit)
        if mutant is None:
            print(f"no longer there: {path}: {known['what']}", flush=True)
            continue
        if (mutant.path, mutant.what, mutant.nth) in done:
            continue
        file, _, test = (known["by"] or "").partition("::")
        file = now.get(file, file)
        tried = [[f"{file}::{test}"], [file]] if file.startswith("tests/") else []
        for tests in [*tried, list(part.tests)]:
            result = verdict(copy, mutant, tests)
            if result["killed"]:
                break
        yield result


def counterpart(there: list[Mutant], file: Path, known: dict[str, Any], tree: Path, commit: str) -> Mutant | None:
    """Of those that change an equal expression (`1` stands in many places): on an equal line, else of equal number."""
    command = ["git", "-C", str(tree), "show", f"{commit}:{known['path']}"]
    before = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = file.read_text().splitlines() if there else []
    indent = len(before[known["line"] - 1]) - len(before[known["line"] - 1].lstrip())
    for mutant in there:
        line = lines[mutant.line - 1]
        place = mutant.column - (len(line) - len(line.lstrip()))
        if line.strip() == before[known["line"] - 1].strip() and place == known["column"] - indent:
            return mutant
    return next((mutant for mutant in there if mutant.nth == known["nth"]), None)


def renamed(tree: Path, commit: str) -> dict[str, str]:
    """Path at `commit` -> path in the tree that is checked out, for the files that git takes for renamed since."""
    command = ["git", "-C", str(tree), "diff", "-M40%", "--name-status", "--diff-filter=R", commit, "HEAD"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split("\t")[1]: line.split("\t")[2] for line in lines}


def key(result: dict[str, Any]) -> Key:
    return result["path"], result["what"], result["nth"]


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
