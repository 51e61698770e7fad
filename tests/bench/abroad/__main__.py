"""Frameworks that people use, healthy and broken: how many healthy runs are quiet, how many faults are named, and when.

    python -m tests.bench.abroad [--only torch] [--list]

Frameworks that are not installed are left out, and said so.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.abroad.cases import broken, healthy, installed
from tests.bench.abroad.judge import Verdict, judged
from tests.bench.abroad.later import cases as later


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a framework, or part of a case's name")
    parser.add_argument("--list", action="store_true", help="print every case, not only what went wrong")
    given = parser.parse_args()
    for module in ("timm", "ignite", "schedulefree", "prodigyopt"):
        if not installed(module):
            print(f"left out: {module} is not installed")
    more = [case for case in later() if case.framework != "ignite" or installed("ignite")]
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate([*healthy(), *broken(), *more]):
            if given.only and given.only not in f"{case.framework} {case.name}":
                continue
            folder = Path(scratch) / str(number)
            folder.mkdir()
            verdict = judged(case, folder)
            verdicts.append(verdict)
            if given.list or not verdict.right:
                _print(verdict)
    _summary(verdicts)


def _print(v: Verdict) -> None:
    kind = "fault  " if v.case.causes else "healthy"
    state = "CRASHED" if v.crashed else "right" if v.right else "WRONG"
    print(f"{state:8}{kind} {v.case.framework}: {v.case.name}")
    if v.crashed:
        print("    " + v.crashed.replace("\n", "\n    "))
    elif v.rules:
        print(f"    {v.named or '-'} at {v.at} (shown at {v.decides}): {v.words}")
    elif v.case.causes:
        print(f"    nothing wrong (shown at {v.decides})")


def _summary(verdicts: list[Verdict]) -> None:
    frameworks = list(dict.fromkeys(v.case.framework for v in verdicts))
    print(f"\n{'':16}{'healthy, quiet':>18}{'faults found':>16}{'cause right':>14}{'first record':>15}{'crashed':>10}")
    for name in [*frameworks, "all"]:
        mine = [v for v in verdicts if name in (v.case.framework, "all")]
        well, ill = [v for v in mine if not v.case.causes], [v for v in mine if v.case.causes]
        quiet, found = sum(v.right for v in well), sum(bool(v.rules) for v in ill)
        named = sum(v.right for v in ill)
        timed = [v for v in ill if v.at is not None and v.decides is not None]
        prompt = sum(v.at <= v.decides for v in timed if v.at is not None and v.decides is not None)
        crashed = sum(v.crashed is not None for v in mine)
        print(
            f"{name:16}{f'{quiet} of {len(well)}':>18}{f'{found} of {len(ill)}':>16}{f'{named} of {len(ill)}':>14}"
            f"{f'{prompt} of {len(timed)}':>15}{crashed:>10}"
        )
    late = Counter(v.case.fault for v in verdicts if v.at and v.decides and v.at > v.decides)
    if late:
        print("later than the first record that shows it:", ", ".join(f"{k} ({n})" for k, n in late.items()))


if __name__ == "__main__":
    main()
