"""Rules of evidence over runs of many kinds (tests/bench/zoo measures their rates), and the cases that were wrong once."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest

import tests.bench.zoo.drawn  # noqa: F401  registers its scenarios
from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import ERROR, EVIDENCE, RESOLVED, WARNING, Finding
from eegwatch.diagnosis.rules.diverging import _smoothed
from eegwatch.diagnosis.rules.gradients import GradZero
from eegwatch.diagnosis.rules.objective import FALLS, UNKNOWN, WANDERS, Objective
from eegwatch.diagnosis.rules.rule import Attempt
from eegwatch.diagnosis.rules.trend import MOST, Trend
from eegwatch.run.records import Eval, Run
from tests.bench.zoo.faults import FAULTS
from tests.bench.zoo.trace import SCENARIOS, Trace
from tests.unit.diagnosis.test_evidence import block, plain_run

DRAWN = {kind.name: kind for kind in SCENARIOS["drawn"]}
SEED = 2


def alarms(trace: Trace) -> list[Finding]:
    diagnosis = Diagnosis()
    said = [f for item in trace.items() for f in diagnosis.feed(item)]
    return [f for f in said if f.severity in (WARNING, ERROR) and f.family == EVIDENCE]


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_healthy_run_of_each_kind_is_quiet(name: str) -> None:
    assert alarms(DRAWN[name].make(SEED, "")) == []


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in sorted(DRAWN) for fault in sorted(DRAWN[name].faults)]
)
def test_what_goes_wrong_in_a_run_of_each_kind_is_found(name: str, fault: str) -> None:
    rules = DRAWN[name].faults[fault]
    assert {f.rule for f in alarms(DRAWN[name].make(SEED, fault))} & set(rules)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_what_goes_wrong_in_any_run_is_found(fault: str) -> None:
    trace = DRAWN["five_classes"].make(SEED, "")
    spoil, rules = FAULTS[fault]
    spoil(np.random.default_rng(SEED), trace)
    assert {f.rule for f in alarms(trace)} & set(rules)


def test_gradients_that_grow_slowly_name_how_much_to_what_and_since_when() -> None:
    """Norms about 1 for 4,000 steps, then ten times larger every 2,000; the finding's figures are those of its step."""
    n = np.arange(1, 12_001)
    norms = 10 ** np.clip((n - 4000) / 2000, 0, 4) * np.random.default_rng(3).lognormal(0, 0.2, len(n))
    diagnosis, changes = plain_run(), list[Finding]()
    for i in range(0, len(n), 200):
        changes += diagnosis.feed(block(1 + i, 200, grad_norm=norms[i : i + 200]))
    (finding,) = [f for f in changes if f.rule == "grad_exploding"]
    found = re.search(r"has grown ([\d,]+) times since step ([\d,]+), to ([\d.e+]+)$", finding.message)
    assert found is not None
    now = norms[finding.step - 1]
    assert now / 4 < float(found[3]) < now
    assert now / 4 < float(found[1].replace(",", "")) < now  # over a norm of 1
    assert 4000 < int(found[2].replace(",", "")) < 5500


def test_zero_gradients_name_the_step_of_the_first_in_a_log_of_each_fiftieth_step() -> None:
    diagnosis, norms = plain_run(), np.ones(60)
    norms[30:] = 0
    records = block(1, 60, grad_norm=norms)
    records.step *= 50
    (finding,) = [f for f in diagnosis.feed(records) if f.rule == "grad_zero"]
    assert finding.since_step == 1550 and finding.severity == WARNING


@pytest.mark.parametrize("width", [1, 4, 30])
def test_the_loss_is_smoothed_by_the_mean_of_the_newest_values(width: int) -> None:
    values = np.random.default_rng(1).normal(size=20)
    means = [values[max(0, i + 1 - width) : i + 1].mean() for i in range(20)]
    assert _smoothed(values, width) == pytest.approx(means)


def test_zero_gradients_are_told_after_any_length_of_a_healthy_run() -> None:
    """The share of batches without a gradient is halved at each block: after 1,075 of them it would be 0."""
    present: dict[str, Finding] = {}
    rule = GradZero(Attempt(None, Objective(None), Trend()), Alarm("grad_zero", present), 1.0)
    healthy = block(1, 256, grad_norm=np.ones(256))
    for _ in range(1_200):
        assert rule.look(healthy) == [] and rule.learn(healthy) == []
    (finding,) = rule.look(block(257, 10, grad_norm=np.zeros(10)))
    assert (finding.rule, finding.since_step) == ("grad_zero", 257)


def test_the_band_of_batch_losses_knows_how_many_processes_share_a_step() -> None:
    """8 x 4 processes average 32 samples: the scatter of 8 is then more than is explained."""

    def said(world_size: int) -> list[str]:
        diagnosis = Diagnosis()
        diagnosis.feed(Run(total_steps=4000, batch_size=8, world_size=world_size, target={"auroc": 0.95}))
        rng = np.random.default_rng(0)
        margin = 0.65 + 1.14 * rng.standard_normal((2000, 8))  # AUROC 0.79
        losses = np.logaddexp(0, -margin).mean(1)
        changes = [f for i in range(0, 2000, 100) for f in diagnosis.feed(block(1 + i, 100, loss=losses[i : i + 100]))]
        changes += diagnosis.feed(Eval(step=2000, auroc=0.79, loss=0.56))
        return [f.rule for f in changes if f.rule == "loss_unstable"]

    assert said(1) == [] and said(4) == ["loss_unstable"]


def test_evaluations_without_any_number_say_nothing_and_break_nothing() -> None:
    diagnosis = plain_run()
    for step in range(10, 200, 10):
        assert [f for f in diagnosis.feed(Eval(step=step, loss="nan", auroc=None)) if f.rule == "overfitting"] == []
    assert diagnosis.isolation.reasons == {}


def test_overfitting_is_not_said_while_the_declared_target_rises() -> None:
    diagnosis, changes = plain_run(), []
    for i in range(20):
        losses = np.full(200, 0.6 - 0.02 * i)
        changes += diagnosis.feed(block(1 + 200 * i, 200, loss=losses))
        changes += diagnosis.feed(Eval(step=200 * (i + 1), loss=0.5 + 0.02 * i, auroc=0.7 + 0.005 * i))
    assert [f for f in changes if f.rule == "overfitting"] == []


def test_balanced_accuracy_at_chance_from_the_first_evaluation_on_is_said_and_resolves() -> None:
    diagnosis = Diagnosis()
    diagnosis.feed(Run(total_steps=60, steps_per_epoch=1))
    rng = np.random.default_rng(0)
    changes = []
    for step in range(1, 41):
        changes += diagnosis.feed(Eval(step=step, balanced_accuracy=float(0.5 + 0.01 * rng.standard_normal())))
    assert [(f.rule, f.severity) for f in changes] == [("metric_stuck", WARNING)] and changes[0].step == 10
    more = [f for step in range(41, 46) for f in diagnosis.feed(Eval(step=step, balanced_accuracy=0.7))]
    assert [f.severity for f in more] == [RESOLVED]


def test_a_course_has_the_same_blocks_however_the_log_is_cut_up() -> None:
    rng = np.random.default_rng(0)
    steps, values = np.arange(1, 30_001), rng.normal(size=30_000)
    values[::97] = math.nan
    whole, parts = Trend(), Trend()
    whole.feed(steps, values, values)
    edges = [0, *sorted(rng.choice(np.arange(1, 30_000), 300, replace=False)), 30_000]
    for begin, end in pairwise(edges):
        parts.feed(steps[begin:end], values[begin:end], values[begin:end])
    assert len(whole) == len(parts) < MOST and whole.size == parts.size
    assert np.allclose(whole.level, parts.level) and np.array_equal(whole.step, parts.step)


@pytest.mark.parametrize(
    ("run", "metrics", "kind"),
    [
        (Run(name="dqn-7"), [], WANDERS),
        (Run(), ["rollout/ep_rew_mean"], WANDERS),
        (Run(), ["loss_D", "loss_G"], WANDERS),
        (Run(target={"auroc": 0.8}), ["lr", "time/fps"], FALLS),
        (Run(name="organ segmentation"), ["samples"], UNKNOWN),
        (None, [], UNKNOWN),
    ],
)
def test_names_beside_a_loss_say_whether_it_is_meant_to_fall(run: Run | None, metrics: list[str], kind: str) -> None:
    objective = Objective(run)
    objective.see_metrics(metrics)
    assert objective.kind == kind
