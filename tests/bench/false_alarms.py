"""How often each rule of evidence fires on healthy noisy runs: `python -m tests.bench.false_alarms [RUNS]`."""

from __future__ import annotations

import sys
from collections import Counter

from eegwatch.diagnosis.engine import Diagnosis
from tests.bench.healthy_runs import healthy_run


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    for total in (2_000, 20_000):
        fired: Counter[tuple[str, str]] = Counter()
        for seed in range(runs):
            diagnosis = Diagnosis()
            changes = [f for item in healthy_run(seed, total) for f in diagnosis.feed(item)]
            fired.update({(f.rule, f.severity) for f in changes if f.severity != "resolved"})
        print(f"{runs} healthy runs of {total:,} steps: false alarms by rule")
        for (rule, severity), count in sorted(fired.items()):
            print(f"  {rule:18} {severity:8} in {count} runs ({count / runs:.1%})")
        if not fired:
            print("  none")


if __name__ == "__main__":
    main()
