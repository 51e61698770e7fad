"""The LR-fault corpus, scored: `python -m tests.bench.faults [HEALTHY [FAULTY]]`."""

from __future__ import annotations

import sys
import time

import numpy as np

from tests.bench.faults.generated import Trial, faulty, healthy
from tests.bench.faults.real_issues import cases
from tests.bench.faults.score import allclose, ours, theoretical_minimum, unchanged


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:]] or [1400, 600]
    real()
    alarms(list(healthy(numbers[0])))
    generated(list(faulty(numbers[1] if len(numbers) > 1 else 600)))


def real() -> None:
    print("Real issues, each on torch's own schedulers, full precision, every step")
    print(f"{'case':54}{'named':>6}{'first':>7}{'least':>7}{'abs<1e-10':>11}{'allclose':>10}")
    named = 0
    everything = cases()
    for case in everything:
        score = ours(case)
        verdict = "yes" if score.cause == case.cause else "among" if case.cause in score.alternatives else "NO"
        named += verdict != "NO"
        figures = [score.first, theoretical_minimum(case), unchanged(case), allclose(case)]
        a, b, c, d = ("–" if f is None else str(f) for f in figures)
        print(f"{case.name[:53]:54}{verdict:>6}{a:>7}{b:>7}{c:>11}{d:>10}")
    print(f"named: {named} of {len(everything)}\n")


def alarms(trials: list[Trial]) -> None:
    began = time.monotonic()
    counts = {"eegwatch": 0, "abs(lr - last) < 1e-10": 0, "np.allclose": 0}
    wrong = []
    for case, form, every in trials:
        if ours(case, form, every).first is not None:
            counts["eegwatch"] += 1
            wrong.append(case.name)
        counts["abs(lr - last) < 1e-10"] += unchanged(case, form, every) is not None
        counts["np.allclose"] += allclose(case, form, every) is not None
    print(f"{len(trials)} healthy runs (resumes, epoch units, manual rates, skipped steps, partial logs, few digits)")
    for name, count in counts.items():
        print(f"  {name:24} false LR alarms in {count:5} runs ({count / len(trials):.1%})")
    for name in wrong[:10]:
        print(f"    {name}")
    print(f"  {time.monotonic() - began:.0f} s\n")


def generated(trials: list[Trial]) -> None:
    first, among, missed, late, early, unseen, baseline = 0, 0, [], [], 0, 0, 0
    delays = []
    for case, form, every in trials:
        score, least = ours(case, form, every), theoretical_minimum(case, form, every)
        baseline += unchanged(case, form, every) is not None
        if score.first is None:
            unseen += 1
            if least is not None:
                late.append(f"{case.name} {form} /{every}: never, could be seen at {least}")
            continue
        if score.cause == case.cause:
            first += 1
        elif case.cause in score.alternatives:
            among += 1
        else:
            missed.append(f"{case.name} {form} /{every}: {score.cause}")
        if least is not None:
            delays.append(score.first - least)
            early += score.first < least
    seen = len(trials) - unseen
    print(f"{len(trials)} generated faults, all precisions and record intervals: {seen} show in the log at all")
    print(f"  cause named first {first}, among what remains {among}, not named {len(missed)}")
    late_steps = np.array([d for d in delays if d > 0])
    print(
        f"  first alarm at the theoretical minimum or the stuck proof before it: {sum(d <= 0 for d in delays)} of {len(delays)}"
    )
    if len(late_steps):
        print(
            f"  later: {len(late_steps)}, by {int(np.median(late_steps))} steps in the median, {late_steps.max()} at most"
        )
    print(f"  abs(lr - last) < 1e-10 fires at all in {baseline} of {len(trials)}")
    for line in [*missed[:8], *late[:4]]:
        print(f"    {line}")


if __name__ == "__main__":
    main()
