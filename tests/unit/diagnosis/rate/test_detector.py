"""The learning-rate detectors: no false alarm ever, detection at the first record that can show it, causes named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st

from eegwatch.diagnosis.findings import ERROR, RESOLVED, WARNING, Finding
from eegwatch.diagnosis.rate.causes import Situation
from eegwatch.diagnosis.rate.detector import LrWatch
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.run.history import StepBlock
from eegwatch.schedule import Schedule, as_dict, parse, resumed
from eegwatch.schedule.base import Warmed
from eegwatch.schedule.families import MultiStep, StepDecay, WarmupHoldAnneal

T, B = 58_285, 11_657
TEXTBOOK = parse(
    {
        "name": "one_cycle",
        "total_steps": T,
        "max_lr": 3e-3,
        "pct_start": 0.2,
        "div_factor": 25,
        "final_div_factor": 1000,
    }
)
INCIDENT = parse({"name": "one_cycle", "total_steps": 2_914_250, "max_lr": 3e-3, "pct_start": 0.2,
                  "div_factor": 25, "final_div_factor": 1000})  # fmt: skip


def block(steps: Any, lrs: Any, positions: Any = None) -> StepBlock:
    n = len(steps)
    zeros = np.zeros(n, np.float32)
    return StepBlock(
        step=np.asarray(steps, np.int64),
        time=np.zeros(n),
        lr=np.asarray(lrs, np.float64),
        position=np.full(n, np.nan) if positions is None else np.asarray(positions, np.float64),
        loss=zeros,
        grad_norm=zeros,
        samples_per_s=zeros,
        skipped=np.zeros(n, np.int32),
    )


def printed(lrs: Any, form: str) -> Any:
    """Rates as a log prints them and a reader gets them back."""
    return np.array([float(form % lr) for lr in lrs])


def watch(
    lrs: Any,
    steps: Any = None,
    *,
    situation: Situation | None = None,
    precision: Precision | None = None,
    lags: tuple[int, ...] = (0,),
    size: int = 1,
    positions: Any = None,
) -> tuple[LrWatch, list[Finding]]:
    steps = np.arange(1, len(lrs) + 1) if steps is None else steps
    watching = LrWatch(situation or Situation(TEXTBOOK, B, epochs=5), precision or Precision(full=True), lags)
    changes = []
    for i in range(0, len(lrs), size):
        part = None if positions is None else positions[i : i + size]
        changes += watching.feed(block(steps[i : i + size], lrs[i : i + size], part))
    return watching, changes


# ---- the theorem -----------------------------------------------------------------------------------------------------


@st.composite
def schedules(draw: Any) -> Schedule:
    total = draw(st.integers(30, 4000))
    max_lr = draw(st.floats(1e-5, 1.0))
    name = draw(
        st.sampled_from(["one_cycle", "cosine", "linear", "polynomial", "step", "constant", "restarts", "bands", "exp"])
    )
    if name == "one_cycle":
        declared = {"max_lr": max_lr, "pct_start": draw(st.floats(0.1, 0.4)), "three_phase": draw(st.booleans()),
                    "anneal_strategy": draw(st.sampled_from(["cos", "linear"])),
                    "final_div_factor": draw(st.floats(2, 1e5))}  # fmt: skip
    elif name in ("cosine", "linear"):
        warmup = draw(st.integers(0, total // 3))
        declared = {"max_lr": max_lr, "final_lr": max_lr / 100, "warmup_steps": warmup, "initial_lr": max_lr / 10}
    elif name == "step":
        declared = {"max_lr": max_lr, "step_size": draw(st.integers(1, total)), "gamma": 0.5}
    elif name == "constant":
        declared = {"lr": max_lr}
    elif name == "restarts":
        name, declared = "cosine_restarts", {"max_lr": max_lr, "T_0": draw(st.integers(2, total)), "T_mult": 2}
    elif name == "bands":
        name = "warmup_hold_anneal"
        declared = {"initial_lr": max_lr / 25, "max_lr": max_lr, "final_lr": max_lr / 1000}
    elif name == "exp":
        name, declared = "exponential", {"max_lr": max_lr, "gamma": 0.999}
    else:
        declared = {"max_lr": max_lr, "power": 2.0}
    schedule = parse({"name": name, "total_steps": total, **declared})
    if draw(st.booleans()):
        schedule = resumed(
            schedule, draw(st.integers(0, total - 1)), max_lr / 3, draw(st.sampled_from(["hold", "anneal"]))
        )
    return schedule


FORMS = [None, "%.2e", "%.3e", "%.4e", "%.6e", "%.6f", "%.8f"]


@given(
    schedule=schedules(),
    form=st.sampled_from(FORMS),
    every=st.integers(1, 60),
    lag=st.integers(-1, 1),
    first=st.integers(1, 400),
    size=st.sampled_from([1, 7, 1000]),
    told=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_a_run_that_follows_its_schedule_never_raises_an_alarm(
    schedule: Schedule, form: str | None, every: int, lag: int, first: int, size: int, told: bool
) -> None:
    steps = np.arange(min(first, schedule.total_steps), schedule.total_steps + 1, every)
    lrs = schedule.rate(np.maximum(steps - 1 + lag, 0))
    lrs = lrs if form is None else printed(lrs, form)
    digits = int(form[2]) + 1 if form and form.endswith("e") and told else None
    precision = Precision(full=True) if form is None and told else Precision(digits)
    if size == 1:
        steps, lrs = steps[:300], lrs[:300]
    watching, changes = watch(
        lrs, steps, situation=Situation(schedule, 100), precision=precision, lags=(0, -1, 1), size=size
    )
    assert changes == [] and watching.fault is None


@given(schedule=schedules(), skips=st.lists(st.integers(1, 500), max_size=6), size=st.sampled_from([1, 50]))
@settings(max_examples=80, deadline=None)
def test_optimizer_steps_that_the_log_says_were_skipped_are_no_fault(
    schedule: Schedule, skips: list[int], size: int
) -> None:
    """AMP: the scheduler is not stepped with a skipped optimizer step, so the position falls behind by the count."""
    n = np.arange(1, min(schedule.total_steps, 500) + 1)
    skipped = np.array([sum(at <= step for at in skips) for step in n])
    data = block(n, schedule.rate(np.maximum(n - 1 - skipped, 0)))
    data.skipped = skipped.astype(np.int32)
    watching = LrWatch(Situation(schedule, 100), Precision(full=True))
    changes = [c for i in range(0, len(n), size) for c in watching.feed(data[slice(i, i + size)])]
    assert changes == []


@given(
    schedule=schedules(),
    floor=st.sampled_from([0.0, 1e-9, 1e-4]),
    kind=st.sampled_from(["float64", "float32", "bfloat16", "%.6f", "%.2e", "truncated", "percent"]),
    every=st.integers(1, 40),
    holes=st.integers(0, 5),
    beyond=st.integers(0, 20),
    foreign=st.booleans(),
    size=st.sampled_from([1, 9, 1000]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_whatever_a_log_does_to_its_rates_a_healthy_run_is_no_error(
    schedule: Schedule,
    floor: float,
    kind: str,
    every: int,
    holes: int,
    beyond: int,
    foreign: bool,
    size: int,
    seed: int,
) -> None:
    """Rates of exactly 0, records without a rate, steps past the end, few records, other number types."""
    if isinstance(schedule, Warmed):
        schedule = msgspec.structs.replace(schedule, initial_lr=floor)
        if hasattr(schedule, "final_lr"):
            schedule = msgspec.structs.replace(schedule, final_lr=floor)
    schedule = parse(as_dict(schedule))
    steps = np.arange(every, schedule.total_steps + 1 + beyond, every)[: 300 if size == 1 else None]
    lrs = schedule.rate(steps - 1)
    if kind == "float32":
        lrs = lrs.astype(np.float32).astype(np.float64)
    elif kind == "bfloat16":
        bits = lrs.astype(np.float32).view(np.uint32)
        lrs = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)
    elif kind == "truncated":
        lrs = np.floor(lrs * 1e7) / 1e7
    elif kind == "percent":
        lrs = printed(lrs * 100, "%.4f") / 100
    elif kind.startswith("%"):
        lrs = printed(lrs, kind)
    if holes:
        lrs[np.random.default_rng(seed).random(len(lrs)) < holes / 6] = np.nan
    precision = Precision(full=True) if kind == "float64" and not foreign else Precision()
    lags = (0, 1, -1) if foreign else (0, 1)
    situation = Situation(schedule, 100, run_total=int(steps[-1]) if len(steps) else None)
    watching, changes = watch(lrs, steps, situation=situation, precision=precision, lags=lags, size=size)
    wrong = [c for c in changes if c.severity == ERROR or c.rule == "amp_skipped"]
    assert not wrong or all(c.since_step > schedule.total_steps for c in wrong), (wrong, watching.precision.words)


@given(
    schedule=schedules(), every=st.sampled_from([10, 25, 50]), seed=st.integers(0, 100), size=st.sampled_from([1, 64])
)
@example(schedule=WarmupHoldAnneal(total_steps=1792, initial_lr=0.04, max_lr=1.0, final_lr=0.001, warmup=0.1, hold_until=0.5),
         every=25, seed=0, size=1)  # two skips while the rate is held, seen together at its end  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_steps_that_a_scaler_skipped_and_nobody_logged_are_no_error(
    schedule: Schedule, every: int, seed: int, size: int
) -> None:
    assume(
        not isinstance(schedule, StepDecay | MultiStep)
    )  # docs/detection.md, limits: two records a stair tell nothing
    rng = np.random.default_rng(seed)
    first = np.arange(1, 1 + rng.integers(0, 4))
    later = np.flatnonzero(rng.random(schedule.total_steps) < 1 / 2000)
    n = np.arange(every, schedule.total_steps + 1, every)
    behind = np.searchsorted(np.concatenate([first, later[later > 4]]), n, side="right")
    lrs = schedule.rate(np.maximum(n - 1 - behind, 0))
    _, changes = watch(lrs, n, situation=Situation(schedule, 100), lags=(0, 1, -1), precision=Precision(), size=size)
    assert [c for c in changes if c.severity == ERROR] == []


# ---- as early as it can be seen --------------------------------------------------------------------------------------


@given(onset=st.integers(2, T - 2))
@settings(max_examples=60, deadline=None)
def test_at_full_precision_a_freeze_is_seen_one_step_after_it_began(onset: int) -> None:
    steps = np.arange(onset - 1, min(onset + 3, T) + 1)
    lrs = TEXTBOOK.rate(np.minimum(steps - 1, onset - 1))
    _, changes = watch(lrs, steps)
    assert changes[0].rule == "lr_stuck"
    assert (changes[0].step, changes[0].since_step) == (onset + 1, onset)


@pytest.mark.parametrize(
    ("form", "digits", "seen"),
    [("%.2e", 3, 99), ("%.4e", 5, 11), ("%.6e", 7, 2)],
)
def test_with_fewer_digits_the_textbook_freeze_is_seen_at_the_theoretical_minimum(
    form: str, digits: int, seen: int
) -> None:
    """The first step at which a healthy run would have printed something else (docs/detection.md: 98)."""
    frozen = printed(TEXTBOOK.rate(np.zeros(400)), form)
    healthy = printed(TEXTBOOK.rate(np.arange(400)), form)
    earliest = int(np.argmax(healthy != frozen)) + 1
    assert earliest == seen
    _, changes = watch(frozen, precision=Precision(digits))
    assert (changes[0].rule, changes[0].step, changes[0].since_step) == ("lr_stuck", seen, 1)


@pytest.mark.parametrize(("every", "seen"), [(1, 1648), (50, 1650)])
def test_the_incident_is_seen_from_three_digits_after_1648_steps(every: int, seen: int) -> None:
    """docs/detection.md: frozen at 2.84e-03 from step 932,560 of 2,914,250 on; 58,285 steps an epoch, 50 epochs."""
    r = 16 * 58_285
    steps = np.arange(r + every, r + 60_000, every)
    lrs = printed(np.full(len(steps), float(INCIDENT.rate(r))), "%.2e")
    situation = Situation(INCIDENT, 58_285, epochs=50, start=r)
    watching, changes = watch(lrs, steps, situation=situation, precision=Precision(3), size=997)
    assert changes[0].rule == "lr_stuck"
    first = next(c for c in changes if c.severity == ERROR)
    assert first.since_step == steps[0]
    one_by_one, changes = watch(
        lrs[: 2000 // every], steps[: 2000 // every], situation=situation, precision=Precision(3)
    )
    assert changes[0].step == r + seen + (1 if every == 1 else 0)
    cause = changes[-1].cause
    assert cause is not None
    assert cause.name == "scheduler_stepped_per_epoch" and "schedule_frozen_on_resume" in cause.alternatives
    assert cause.position == [923_198.0, 934_207.0]
    assert "one epoch boundary among them, 16 × 58,285" in cause.evidence
    assert "or, less likely" in cause.evidence and "(position 15 of 50)" in cause.evidence


def test_what_the_incident_costs_is_small_now_and_large_if_left() -> None:
    r = 16 * 58_285
    steps = np.arange(r + 1, r + 49_477)
    lrs = np.full(len(steps), float(INCIDENT.rate(r)))
    watching, _ = watch(lrs, steps, situation=Situation(INCIDENT, 58_285, epochs=50, start=r), size=10_000)
    assert watching.fault is not None
    now, later = watching.fault.cost()
    assert now - 1 == pytest.approx(0.017, abs=0.0005)
    assert later == pytest.approx(2.35, abs=0.02)
    assert "+1.7 % now, 2.4 times too high on average if nothing is done" in watching.fault.finding().message


# ---- causes ----------------------------------------------------------------------------------------------------------

n = np.arange(1.0, T + 1)
FRESH: list[tuple[str, Any, dict[str, Any]]] = [
    ("scheduler_stepped_per_epoch", TEXTBOOK.rate((n - 1) // B), {}),
    ("scheduler_never_stepped", TEXTBOOK.rate(np.zeros(T)), {}),
    ("scheduler_stepped_per_microbatch", TEXTBOOK.rate(np.minimum((n - 1) * 4, T - 1)), {"accumulate": 4}),
    ("scheduler_stepped_per_process", TEXTBOOK.rate(np.minimum((n - 1) * 8, T - 1)), {"world_size": 8}),
    ("scheduler_stepped_per_process", TEXTBOOK.rate(np.minimum((n - 1) * 8, T - 1)), {}),
    ("scheduler_stepped_per_batch_and_epoch", TEXTBOOK.rate(np.minimum(n - 1 + (n - 1) // B, T - 1)), {}),
    ("rate_scaled", TEXTBOOK.rate(n - 1) * 2, {}),
    ("wrong_total_steps", parse({"name": "one_cycle", "total_steps": T * 4, "max_lr": 3e-3, "pct_start": 0.2,
                                 "final_div_factor": 1000}).rate(n - 1), {"accumulate": 4}),
    ("wrong_total_steps", parse({"name": "one_cycle", "total_steps": 40_000, "max_lr": 3e-3, "pct_start": 0.2,
                                 "final_div_factor": 1000}).rate(np.minimum(n - 1, 39_999)), {}),
    ("final_div_factor_from_initial", parse({"name": "one_cycle", "total_steps": T, "max_lr": 3e-3, "pct_start": 0.2,
                                             "final_div_factor": 40}).rate(n - 1), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lrs", "counts"), FRESH, ids=lambda v: v if isinstance(v, str) else "")
def test_a_fault_from_scratch_is_named(name: str, lrs: Any, counts: dict[str, Any]) -> None:
    situation = Situation(TEXTBOOK, B, epochs=5, **counts)
    watching, changes = watch(lrs[:30_000], situation=situation, size=500)
    assert watching.fault is not None
    cause = watching.fault.cause()
    declared = 25 if name == "final_div_factor_from_initial" else 1  # 1000 / 25 = 40
    assert cause.name == name, (cause, declared)


R = 20_000
after = np.arange(R + 1, R + 3001)
RESUMED: list[tuple[str, Any]] = [
    ("schedule_restarted_on_resume", TEXTBOOK.rate(after - 1.0 - R)),
    ("schedule_frozen_on_resume", np.full(3000, float(TEXTBOOK.rate(R)))),
    ("rate_reset_on_resume", np.full(3000, 1.2e-4)),
    ("schedule_lags_after_resume", TEXTBOOK.rate(after - 1.0 - R % B)),
    ("schedule_lags_after_resume", TEXTBOOK.rate(after - 2.0)),
    ("schedule_lags_after_resume", TEXTBOOK.rate(after - 1.0 - 1234)),
]


@pytest.mark.parametrize(("name", "lrs"), RESUMED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_fault_after_a_resume_is_named_or_is_among_what_remains(name: str, lrs: Any) -> None:
    watching, _ = watch(lrs, after, situation=Situation(TEXTBOOK, B, epochs=5, start=R), size=100)
    assert watching.fault is not None
    cause = watching.fault.cause()
    assert name in (cause.name, *cause.alternatives)
    if name == "schedule_frozen_on_resume":  # until the epoch's end nothing tells it from once an epoch
        assert cause.name == "scheduler_stepped_per_epoch" and cause.separates_at == 2 * B + 1
    else:
        assert cause.name == name


@pytest.mark.parametrize(
    "batches", [157, 159, 161, 163]
)  # of 40 optimizer steps of 4: some short of 160, some left over
def test_a_scheduler_stepped_at_every_micro_batch_is_named_where_they_do_not_divide_the_epoch(batches: int) -> None:
    schedule = parse({"name": "cosine", "total_steps": 4000, "max_lr": 1e-3})
    epoch, within = np.divmod(np.arange(800), 40)
    lrs = schedule.rate(epoch * batches + np.minimum((within + 1) * 4, batches) - 1)
    watching, _ = watch(lrs, situation=Situation(schedule, 40, epochs=100, accumulate=4), size=40)
    assert watching.fault is not None
    cause = watching.fault.cause()
    assert cause.name == "scheduler_stepped_per_microbatch" and f"{batches} times an epoch of 40" in cause.says


@pytest.mark.parametrize("phase", [0, 3, 4])
def test_a_scheduler_stepped_at_every_micro_batch_is_named_wherever_in_the_loop_it_is_stepped(phase: int) -> None:
    """The optimizer's step comes first, or before or after the scheduler's at the fourth micro-batch."""
    lrs = TEXTBOOK.rate(np.arange(800) * 4 + phase)
    watching, _ = watch(lrs, situation=Situation(TEXTBOOK, B, epochs=5, accumulate=4), size=40)
    assert watching.fault is not None
    assert watching.fault.cause().name == "scheduler_stepped_per_microbatch"


@pytest.mark.parametrize("start", [2 * B, 2 * B + 4321])
def test_stepped_every_batch_and_every_epoch_is_named_after_a_resume_too(start: int) -> None:
    """The epochs before the resume are in the restored position; those after it add a step each."""
    steps = np.arange(start + 1, start + B + 3001)
    lrs = TEXTBOOK.rate(steps - 1.0 + (steps - 1) // B - (start // B))
    watching, _ = watch(lrs, steps, situation=Situation(TEXTBOOK, B, epochs=5, start=start), size=100)
    assert watching.fault is not None and watching.fault.since == (start // B + 1) * B + 1
    assert watching.fault.cause().name == "scheduler_stepped_per_batch_and_epoch"


def torchs_cosine(steps_after: Callable[[int], int], *, epoch: int = 20, total: int = 120) -> StepBlock:
    """Rates of torch's own recursion; `steps_after(n)`: how often the scheduler is stepped after update n."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, 1e-5)
    optimizer.step()
    lrs, positions = [], []
    for n in range(1, total + 1):
        lrs.append(optimizer.param_groups[0]["lr"])
        positions.append(scheduler.last_epoch)
        for _ in range(steps_after(n)):
            scheduler.step()
    return block(np.arange(1, total + 1), lrs, positions)


@pytest.mark.parametrize(
    ("steps_after", "name", "says"),
    [
        (lambda n: 1 + 5 * (n % 20 == 0), "scheduler_stepped_per_batch_and_epoch", "5 more times an epoch"),
        (lambda _: 2, "scheduler_stepped_per_process", "2 times an optimizer step"),
        (lambda n: int(n > 20), "unknown", "from step 21 on only: it is 20 steps behind"),
    ],
)
def test_a_pace_of_torchs_recursion_is_named_by_its_positions(steps_after: Any, name: str, says: str) -> None:
    law = {"name": "cosine", "total_steps": 120, "max_lr": 1e-2, "final_lr": 1e-5, "past_end": "rise"}
    watching = LrWatch(Situation(parse(law), 20, epochs=6), Precision(full=True), (0,))
    watching.feed(torchs_cosine(steps_after))
    assert watching.fault is not None
    cause = watching.fault.cause()
    assert cause.name == name and says in watching.fault.finding().message


def test_the_position_in_our_own_log_settles_what_rates_alone_cannot() -> None:
    """Frozen at 3 digits: per epoch and never print alike for a whole run, the positions do not."""
    steps = np.arange(1, B + 200)
    lrs = printed(TEXTBOOK.rate((steps - 1) // B), "%.2e")
    watching, _ = watch(lrs, precision=Precision(3), size=500)
    assert watching.fault is not None and "scheduler_never_stepped" in watching.fault.cause().alternatives
    watching, _ = watch(lrs, precision=Precision(3), size=500, positions=(steps - 1) // B)
    assert watching.fault is not None
    cause = watching.fault.cause()
    assert cause.name == "scheduler_stepped_per_epoch" and "scheduler_never_stepped" not in cause.alternatives


def test_an_override_that_was_not_kept_is_named() -> None:
    manual = resumed(TEXTBOOK, R, 3e-4, "hold")
    lrs = np.concatenate([[3e-4], TEXTBOOK.rate(after[1:] - 1)])
    watching, changes = watch(lrs, after, situation=Situation(manual, B, epochs=5, start=R))
    assert changes[0].rule == "lr_jump" and changes[0].step == R + 2
    assert watching.fault is not None and watching.fault.cause().name == "override_not_honoured"


def test_an_epoch_schedule_that_is_stepped_every_batch_is_named() -> None:
    schedule = parse({"name": "cosine", "total_steps": 10, "max_lr": 1e-3, "unit": "epoch"})
    lrs = schedule.rate(np.minimum(np.arange(100), 9))
    watching, _ = watch(lrs[:9], situation=Situation(schedule, 50, epochs=10))
    assert watching.fault is not None and watching.fault.cause().name == "epoch_schedule_stepped_per_batch"


def test_nonsense_is_called_unknown_not_explained_away() -> None:
    lrs = TEXTBOOK.rate(n[:500] - 1) * (1 + 0.2 * np.sin(n[:500] / 9))
    watching, _ = watch(lrs)
    assert watching.fault is not None
    assert watching.fault.cause().name == "unknown" and not watching.fault.cause().alternatives


def test_the_truth_is_never_ruled_out_and_what_is_ruled_out_names_its_record() -> None:
    watching, _ = watch(TEXTBOOK.rate((n - 1) // B)[: B + 100], size=100)
    assert watching.fault is not None
    cause = watching.fault.cause()
    assert cause.name == "scheduler_stepped_per_epoch"
    assert cause.killed["scheduler_never_stepped"] == B + 1


# ---- the life of a finding -------------------------------------------------------------------------------------------


def test_a_finding_resolves_when_the_rate_is_back_on_schedule_and_says_when() -> None:
    lrs = TEXTBOOK.rate(n[:100] - 1).copy()
    lrs[40:60] = lrs[40]
    watching, changes = watch(lrs)
    assert [c.severity for c in changes if c.rule == "lr_stuck"][0] == ERROR
    assert changes[-1].severity == RESOLVED and watching.fault is None
    assert changes[-1].step in (61, 62)


def test_a_finding_is_said_once_not_at_every_record() -> None:
    _, changes = watch(TEXTBOOK.rate(np.zeros(3000)))
    assert len(changes) == 1


@pytest.mark.parametrize(("final", "says"), [(0.0, "nothing is trained at 0"), (1e-6, "its last rate is held")])
def test_a_run_beyond_the_end_of_its_schedule_is_a_warning_that_says_what_it_trains_at(final: float, says: str) -> None:
    schedule = parse({"name": "linear", "total_steps": 500, "max_lr": 1e-3, "final_lr": final})
    lrs = schedule.rate(np.minimum(np.arange(700), 500))
    _, (finding,) = watch(lrs, situation=Situation(schedule, 100, epochs=5), size=50)
    assert finding.rule == "lr_off_schedule" and finding.severity == WARNING and finding.since_step == 501
    assert "beyond the end of its schedule since step 501" in finding.message and finding.message.endswith(says)


def test_a_hold_is_flat_by_design_and_says_until_when() -> None:
    bands = parse(
        {"name": "warmup_hold_anneal", "total_steps": 1000, "initial_lr": 1.2e-4, "max_lr": 3e-3, "final_lr": 3e-6}
    )
    watching, changes = watch(bands.rate(np.arange(300)), situation=Situation(bands, 100))
    assert changes == []
    state, when = watching.moves()
    assert state == "untold" and when == 502
    watching.feed(block(np.arange(301, 503), bands.rate(np.arange(300, 502))))
    assert watching.moves()[0] == "ok"


def test_blocks_of_any_size_lead_to_the_same_verdict() -> None:
    lrs = TEXTBOOK.rate(n[:3000] - 1).copy()
    lrs[1000:] = lrs[1000]
    outcomes = set()
    for size in (1, 13, 3000):
        watching, changes = watch(lrs, size=size)
        assert watching.fault is not None
        outcomes.add((watching.fault.rule, watching.fault.since, watching.fault.cause().name))
    assert len(outcomes) == 1


def test_records_without_a_rate_claim_nothing() -> None:
    lrs = TEXTBOOK.rate(n[:200] - 1).copy()
    lrs[20:90] = np.nan
    lrs[95::2] = np.nan
    watching, changes = watch(lrs, size=30)
    assert changes == [] and watching.fault is None and watching.last == (199, float(TEXTBOOK.rate(198)))
