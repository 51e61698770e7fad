"""`python -m tests.bench.scripts_of_others [--folder CHECKOUTS] [--only NAME]`: prints a table of what works.

Nothing is fetched and nothing of others' is kept here: CHECKOUTS holds nanoGPT, transformers, … as their own
repositories have them (docs/scripts.md names the versions).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.scripts_of_others import eeg, others, shapes, two_lines
from tests.bench.scripts_of_others.trial import COLUMNS, Case, Trial


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="checkouts of the scripts of others")
    parser.add_argument("--packages", type=Path, help="a folder of packages that these need (pip install --target)")
    parser.add_argument("--two-lines", action="store_true", help="only what RunLog and the callbacks can do")
    parser.add_argument("--only", help="cases whose name holds this")
    given = parser.parse_args()
    if given.packages:
        others.packages(given.packages)
        os.environ["PYTHONPATH"] = f"{given.packages}:{os.environ.get('PYTHONPATH', '')}"
    cases = [*shapes.CASES, *((*others.cases(given.folder), *eeg.cases(given.folder)) if given.folder else ())]
    chosen = [case for case in cases if not given.only or given.only in case.name]
    table([(case.name, Trial(case, _folder(case)).run()) for case in chosen] if not given.two_lines else [], COLUMNS)
    edited = (*others.two_lines(given.folder), *eeg.two_lines(given.folder)) if given.folder else ()
    live = [case for case in edited if (given.only or "") in case.name]
    table([(case.name, two_lines.Live(case, _folder(case)).run()) for case in live], two_lines.COLUMNS)


def _folder(case: Case) -> Path:
    name = "".join(c if c.isalnum() else "-" for c in case.name)
    return Path(tempfile.mkdtemp(prefix="eegwatch-trial-")) / name


def table(rows: list[tuple[str, dict[str, str]]], columns: Sequence[str]) -> None:
    if rows:
        print("| script | " + " | ".join(columns) + " |")
        print("|---" * (len(columns) + 1) + "|")
    for name, said in rows:
        print(f"| `{name}` | " + " | ".join(said.get(column, "") for column in columns) + " |")


if __name__ == "__main__":
    main()
