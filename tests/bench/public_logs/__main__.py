"""Open the logs of `index.tsv` from clones of their repositories, and say which are read right.

    python -m tests.bench.public_logs CLONES [--only s01,t12]

`CLONES/OWNER/NAME` (or `CLONES/OWNER+NAME/repo`) is a clone that has the commit. Columns of the index: id, round,
repository, commit, path; `first`: whether a person, who had looked at the file before, found it read right when it was
opened for the first time; `read`: what stands in the file (records, first and last step, rates, losses, evaluations, of
the newest run where there are several), or `refuse` for a file that is no training log.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from eegwatch.check import open_run
from eegwatch.run.follow import FormatError

INDEX = Path(__file__).with_name("index.tsv")


def clone_of(clones: Path, repository: str) -> Path | None:
    """The git directory of a repository's clone; None if there is none."""
    for folder in (clones / repository, clones / repository.replace("/", "+") / "repo"):
        for git in (folder / ".git", folder):
            if (git / "HEAD").is_file():
                return git
    return None


def found(path: Path) -> list[str]:
    """Records, first step, last step, rates, losses, evaluations; ["refuse"] for a file that holds no training record."""
    try:
        run = open_run(path, None, None)
        run.read_to_end()
    except FormatError:
        return ["refuse"]
    history = run.history
    if not history.length:
        return ["refuse"]
    rates, losses = (int(np.isfinite(column).sum()) for column in (history.lr, history.loss))
    return [str(n) for n in (history.length, history.step[0], history.step[-1], rates, losses, len(history.evals))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("--only", default="", help="ids, separated by commas")
    given = parser.parse_args()
    chosen = set(filter(None, given.only.split(",")))
    with INDEX.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if not chosen or row["id"] in chosen]
    right = missing = 0
    for row in rows:
        git = clone_of(given.clones, row["repository"])
        shown = git and subprocess.run(
            ["git", "--git-dir", git, "show", f"{row['commit']}:{row['path']}"], capture_output=True, check=False
        )
        if not shown or shown.returncode:
            missing += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(row["path"]).name
            path.write_bytes(shown.stdout)
            os.utime(path, (1.7e9, 1.7e9))  # a file that still grows keeps its last row back
            got = found(path)
        if got == row["read"].split():
            right += 1
        else:
            print(f"{row['id']} {row['repository']} {row['path']}: {' '.join(got)}, not {row['read']}", flush=True)
    print(f"{right} of {len(rows) - missing} are read right; {missing} of {len(rows)} are not among the clones")
    return 0 if right == len(rows) - missing else 1


if __name__ == "__main__":
    sys.exit(main())
