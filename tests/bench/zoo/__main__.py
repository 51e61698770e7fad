"""How often the rules of evidence alarm on healthy runs of many kinds, and how many faulty ones they find.

    python -m tests.bench.zoo [--seeds 20] [--only PATTERN] [--groups drawn trained later] [--list]

A healthy run counts as alarmed if a rule of evidence ever says warning or error; a faulty one as found if one of the
rules that name its fault does so. The rules were tuned on even seeds of `drawn` and `trained`; odd seeds, and the
scenarios of `later`, which were written afterwards, are printed apart.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

import tests.bench.zoo.drawn
import tests.bench.zoo.later
import tests.bench.zoo.trained  # noqa: F401  each registers its scenarios
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import ERROR, EVIDENCE, WARNING, Finding
from tests.bench.zoo.faults import FAULTS, HOSTS
from tests.bench.zoo.trace import SCENARIOS, Scenario, Trace

MOST_ALARMED, LEAST_FOUND = 0.01, 0.8


@dataclass
class Score:
    runs: int = 0
    hit: int = 0
    rules: Counter[str] = field(default_factory=Counter)

    def add(self, hit: bool, rules: set[str]) -> None:
        self.runs += 1
        self.hit += hit
        self.rules.update(rules)

    @property
    def rate(self) -> float:
        return self.hit / max(self.runs, 1)


def alarms(trace: Trace) -> list[Finding]:
    """What the rules of evidence say of a run, warnings and errors alone."""
    diagnosis = Diagnosis()
    said = [f for item in trace.items() for f in diagnosis.feed(item)]
    return [f for f in said if f.severity in (WARNING, ERROR) and f.family == EVIDENCE]


def spoiled(kind: Scenario, seed: int, fault: str) -> Trace:
    """A run of this kind with the fault: its own, or one that any run can have."""
    if fault in FAULTS:
        trace = kind.make(seed, "")
        FAULTS[fault][0](np.random.default_rng(seed + 77), trace)
        return trace
    return kind.make(seed, fault)


def faults_of(kind: Scenario) -> dict[str, tuple[str, ...]]:
    everywhere = {name: rules for name, (_, rules) in FAULTS.items()} if kind.name in HOSTS else {}
    return {**kind.faults, **everywhere}


def measure(kind: Scenario, seeds: range, verbose: bool) -> tuple[Score, dict[str, Score]]:
    healthy, faulty = Score(), {fault: Score() for fault in faults_of(kind)}
    for seed in seeds:
        said = alarms(kind.make(seed, ""))
        healthy.add(bool(said), {f.rule for f in said})
        for f in said if verbose else []:
            print(f"    {kind.name} {seed}: {f.step} {f.rule}: {f.message}")
        for fault, rules in faults_of(kind).items():
            said = alarms(spoiled(kind, seed, fault))
            faulty[fault].add(any(f.rule in rules for f in said), {f.rule for f in said})
            if verbose and not any(f.rule in rules for f in said):
                print(f"    {kind.name} {seed}: {fault} was missed; {[f'{f.step} {f.rule}' for f in said]}")
    return healthy, faulty


def show(title: str, kinds: list[Scenario], seeds: range, verbose: bool) -> None:
    print(f"\n{title}")
    by_rule: dict[str, Score] = {}
    quiet = runs = alarmed = found = faulty_runs = met = 0
    for kind in kinds:
        healthy, faulty = measure(kind, seeds, verbose)
        runs, alarmed = runs + healthy.runs, alarmed + healthy.hit
        quiet += healthy.rate <= MOST_ALARMED
        why = ", ".join(f"{rule} {n}" for rule, n in healthy.rules.most_common())
        print(f"  {kind.name:24} healthy: {healthy.hit} of {healthy.runs} alarmed  {why}", flush=True)
        for fault, score in faulty.items():
            found, faulty_runs, met = found + score.hit, faulty_runs + score.runs, met + (score.rate >= LEAST_FOUND)
            rule = by_rule.setdefault(" or ".join(faults_of(kind)[fault]), Score())
            rule.runs, rule.hit = rule.runs + score.runs, rule.hit + score.hit
            mark = "" if score.rate >= LEAST_FOUND else "   <- below 80 %"
            print(f"  {'':24} {fault}: {score.hit} of {score.runs} found{mark}")
    total = sum(len(faults_of(kind)) for kind in kinds)
    print(f"  healthy: {alarmed} of {runs} runs alarmed, {quiet} of {len(kinds)} scenarios at most 1 %")
    print(f"  faulty: {found} of {faulty_runs} found, {met} of {total} scenario x fault at least 80 %")
    for rules, score in sorted(by_rule.items()):
        print(f"    {rules:28} {score.hit} of {score.runs}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20, help="of each scenario: half for tuning, half held out")
    parser.add_argument("--only", default="", help="scenarios whose name matches")
    parser.add_argument("--groups", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--parity", choices=("even", "odd", "both"), default="both")
    parser.add_argument("--list", action="store_true", help="each alarm and each miss")
    arguments = parser.parse_args()
    even, odd = range(0, arguments.seeds, 2), range(1, arguments.seeds, 2)
    for group in arguments.groups:
        kinds = [kind for kind in SCENARIOS[group] if re.search(arguments.only, kind.name)]
        if not kinds:
            continue
        if group == "later":
            show(f"{group}: scenarios written after the rules", kinds, range(arguments.seeds), arguments.list)
            continue
        if arguments.parity != "odd":
            show(f"{group}: even seeds, which the rules were tuned on", kinds, even, arguments.list)
        if arguments.parity != "even":
            show(f"{group}: odd seeds, held out", kinds, odd, arguments.list)


if __name__ == "__main__":
    main()
