"""`python -m tests.bench.scripts_of_others [--folder CHECKOUTS] [--only NAME]`: prints a table of what works.

Nothing is fetched and nothing of others' is kept here: CHECKOUTS holds nanoGPT, transformers, … as their own
repositories have them (docs/scripts.md names the versions).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from tests.bench.scripts_of_others import others, shapes
from tests.bench.scripts_of_others.trial import COLUMNS, Trial


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="checkouts of the scripts of others")
    parser.add_argument("--packages", type=Path, help="a folder of packages that these need (pip install --target)")
    parser.add_argument("--only", help="cases whose name holds this")
    given = parser.parse_args()
    if given.packages:
        others.packages(given.packages)
        os.environ["PYTHONPATH"] = f"{given.packages}:{os.environ.get('PYTHONPATH', '')}"
    cases = [*shapes.CASES, *(others.cases(given.folder) if given.folder else ())]
    rows = []
    for number, case in enumerate(cases):
        if given.only and given.only not in case.name:
            continue
        folder = Path(tempfile.mkdtemp(prefix="eegwatch-trial-")) / str(number)
        rows.append((case.name, Trial(case, folder).run()))
    print("| script | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, said in rows:
        print(f"| `{name}` | " + " | ".join(said.get(c, "") for c in COLUMNS) + " |")


if __name__ == "__main__":
    main()
