"""The mission's checklist as live ticks, and its table of expected against observed figures."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import RATE
from eegwatch.diagnosis.rules.batch_noise import batch_loss_band
from eegwatch.run.history import History, logged
from eegwatch.schedule import Manual, Schedule, declared_base, final_rate, initial_rate, peak_rate, position_at, rate_at
from eegwatch.wording import exact_rate, rate, short_rate

PASS, FAIL, WAIT, WARN = "✔", "✖", "…", "!"
NEAR = 1e-6  # relative: a logged rate against a declared one of another schedule length
RECENT = 2000  # losses looked at for the noise band: the newest, since the mean falls over the run
FOLLOWED = 1e-2  # relative: a rate this near to the planned one follows it, whatever the log rounds to
MOST_LOOKED_AT = 4096  # rates of a warm-up, equally spaced: of a million they would take ten milliseconds a frame
CENTRAL_SHARE = 0.9  # of a recent batch's losses should lie in the central 98 % band, with room for a changing AUROC


@dataclass(frozen=True)
class Tick:
    """One question of the checklist: `mark` is PASS, FAIL, WARN or WAIT (cannot be told yet)."""

    mark: str
    short: str
    text: str


@dataclass(frozen=True)
class Row:
    """One line of the table; `mark` may be empty."""

    metric: str
    expected: str
    observed: str
    mark: str = ""


def val_auroc(history: History) -> float | None:
    scores = [float(e.auroc) for e in history.evals if e.split == "val" and e.auroc is not None]
    return scores[-1] if scores else None


def loss_band(history: History, newest: float | None) -> tuple[float, float] | None:
    """The ordinary range of single-batch losses at this AUROC and batch size; None before an AUROC is known."""
    run = history.run
    if newest is None or run is None or not run.batch_size or not np.isfinite(newest):
        return None
    return batch_loss_band(round(newest, 2), run.batch_size * run.accumulate)


def checklist(history: History, diagnosis: Diagnosis) -> list[Tick]:
    """The checklist: LR changes at every batch; warm-up; annealing; loss stability; AUROC against target.

    Without a declared schedule it has one row about the LR; without an AUROC or a target for it no row about that.
    """
    scored = [_auroc(history)] if _has_auroc(history) else []
    if diagnosis.lr is None and diagnosis.schedule is None:
        return [_undeclared(history, diagnosis), _loss(history), *scored]
    return [_moves(diagnosis), _warm_up(history, diagnosis), _annealing(history, diagnosis), _loss(history), *scored]


def _has_auroc(history: History) -> bool:
    target = (history.run.target or {}).get("auroc") if history.run else None
    return target is not None or any(e.auroc is not None for e in history.evals)


def _undeclared(history: History, diagnosis: Diagnosis) -> Tick:
    if history.run is not None and history.run.schedule is not None:
        return Tick(WAIT, "LR", "LR: the declared schedule cannot be read")
    if diagnosis.law is None:
        return Tick(WAIT, "LR", "LR: no schedule is declared")
    from eegwatch.diagnosis.rate.found_law_text import described

    return Tick(WAIT, "LR", f"LR follows {described(diagnosis.law)}, found in the log; none is declared")


def _moves(diagnosis: Diagnosis) -> Tick:
    if diagnosis.lr is None:
        return Tick(WAIT, "LR moves", "LR moves every batch: no schedule is declared")
    state, when = diagnosis.lr.moves()
    if state == "fault":
        fault = diagnosis.lr.fault
        stuck = fault is not None and fault.rule == "lr_stuck"
        return Tick(FAIL, "LR moves", "LR stands still" if stuck else "LR is off its schedule")
    if state == "ok":
        healed = [finding.until_step or 0 for finding in diagnosis.past if finding.family == RATE and finding.bad]
        if healed:
            return Tick(WARN, "LR moves", f"LR wrong until step {max(healed):,}, on schedule since")
        return Tick(PASS, "LR moves", "LR moves every batch, on schedule")
    until = f"flat by design until step {when:,}" if when else "flat by design to the end"
    return Tick(WAIT, "LR moves", f"LR moves: {until}" if diagnosis.lr.last else "LR moves every batch")


def _warm_up(history: History, diagnosis: Diagnosis) -> Tick:
    schedule = diagnosis.schedule
    phases = schedule.phases() if schedule else []
    if schedule is None or not phases or phases[0][0] != "warm-up":
        return Tick(PASS if schedule else WAIT, "warm-up", "warm-up: none declared" if schedule else "warm-up")
    end = phases[0][2]
    run = history.run
    base = declared_base(schedule)
    label = f"warm-up {short_rate(initial_rate(base))} → {short_rate(peak_rate(base))}"
    if isinstance(schedule, Manual) and schedule.from_step < base.phases()[0][2]:
        return Tick(WARN, "warm-up", f"warm-up left for a manual LR at step {schedule.from_step + 1:,}")
    faulty = diagnosis.lr is not None and diagnosis.lr.fault is not None
    since = diagnosis.lr.fault.since if diagnosis.lr and diagnosis.lr.fault else None
    per_epoch = run.steps_per_epoch if run else None
    position = float(position_at(schedule, max(history.step_done, 1), per_epoch))
    if faulty and since is not None and float(position_at(schedule, since, per_epoch)) <= end:
        return Tick(FAIL, "warm-up", label)
    if position >= end:
        return _warmed_up(history, base, end, label)
    return Tick(WAIT, "warm-up", f"{label} ({100 * position / max(end, 1):.0f} %)")


def _warmed_up(history: History, base: Schedule, end: float, label: str) -> Tick:
    """Past the warm-up's end: whether it took place, by the rates that were logged in it."""
    per_epoch = history.run.steps_per_epoch if history.run else None
    count = bisect_right(history.step, end, key=lambda step: float(position_at(base, step, per_epoch)))
    spaced = slice(0, count, -(-count // MOST_LOOKED_AT) or 1)
    logged_rates = history.lr[spaced]
    known = np.isfinite(logged_rates)
    if not known.any():
        return Tick(WAIT, "warm-up", f"{label}: not in this log")
    planned = rate_at(base, history.step[spaced][known], per_epoch)
    followed = float(np.isclose(logged_rates[known], planned, rtol=FOLLOWED, atol=0).mean())
    if followed >= CENTRAL_SHARE:
        return Tick(PASS, "warm-up", label)
    return Tick(WARN, "warm-up", f"{label}: did not take place" if followed < 0.5 else f"{label}: in part")


def _annealing(history: History, diagnosis: Diagnosis) -> Tick:
    schedule, run = diagnosis.schedule, history.run
    if schedule is None or run is None:
        return Tick(WAIT, "annealing", "annealing")
    floor = final_rate(schedule)
    final_lr = (run.expected or {}).get("final_lr")
    label = f"annealing to {short_rate(final_lr or floor)}"
    if not isinstance(schedule, Manual) and final_lr is not None and not np.isclose(floor, final_lr, rtol=NEAR, atol=0):
        return Tick(FAIL, "annealing", f"{label} (ends at {short_rate(floor)})")
    if diagnosis.lr is not None and diagnosis.lr.fault is not None:
        return Tick(FAIL, "annealing", label)
    begin = schedule.phases()[-1][1] if schedule.phases() else 0
    position = float(position_at(schedule, max(history.step_done, 1), run.steps_per_epoch))
    if run.total_steps and history.step_done >= run.total_steps:
        return Tick(PASS, "annealing", label)
    share = (position - begin) / max(schedule.total_steps - 1 - begin, 1)
    return Tick(WAIT, "annealing", f"{label} ({100 * share:.0f} %)" if share > 0 else f"{label} (not yet)")


def _loss(history: History) -> Tick:
    losses = history.loss[-RECENT:]
    losses = losses[logged(losses)]
    if not len(losses):
        return Tick(WAIT, "loss", "loss within batch noise")
    if not np.isfinite(losses[-1]):
        return Tick(FAIL, "loss", f"loss is {losses[-1]}")
    band = loss_band(history, val_auroc(history))
    if band is None and not (history.run is not None and history.run.batch_size and _has_auroc(history)):
        return Tick(PASS, "loss", "loss is finite")  # what noise explains is known of AUROC and a batch size alone
    if band is None:
        return Tick(WAIT, "loss", "loss within batch noise (after the first evaluation)")
    inside = float(((losses >= band[0]) & (losses <= band[1])).mean())
    text = f"loss within batch noise {band[0]:.2f}–{band[1]:.2f}"
    if inside >= CENTRAL_SHARE or float(losses.max()) <= band[1]:
        return Tick(PASS, "loss", text)
    above = float((losses > band[1]).mean())
    return Tick(WARN if above > 1 - CENTRAL_SHARE else PASS, "loss", f"{text} ({100 * above:.0f} % above)")


def _auroc(history: History) -> Tick:
    target = (history.run.target or {}).get("auroc") if history.run else None
    scores = [float(e.auroc) for e in history.evals if e.split == "val" and e.auroc is not None]
    if not scores:
        return Tick(WAIT, "AUROC", f"AUROC of {target:g}" if target else "AUROC")
    now = scores[-1]
    trend = ""
    if len(scores) > 1:
        before = float(np.mean(scores[-4:-1]))
        trend = ", rising" if now > before + 0.002 else ", falling" if now < before - 0.002 else ", level"
    if target is None:
        return Tick(WAIT, "AUROC", f"AUROC {now:.3f}{trend}")
    return Tick(PASS if now >= target else WAIT, "AUROC", f"AUROC {now:.3f} of {target:g}{trend}")


def table(history: History, diagnosis: Diagnosis) -> list[Row]:
    """Initial, peak, present and final LR, loss range, AUROC and convergence: expected against observed."""
    schedule, run = diagnosis.schedule, history.run
    rows: list[Row] = []
    if schedule is not None and run is not None:
        rows += _rates(history, diagnosis)
    band = loss_band(history, val_auroc(history))
    losses = history.loss[-RECENT:]
    finite = losses[np.isfinite(losses)]
    seen = f"{np.quantile(finite, 0.01):.2f}–{np.quantile(finite, 0.99):.2f}" if len(finite) else "–"
    rows.append(Row("loss range", f"{band[0]:.2f}–{band[1]:.2f}" if band else "–", seen, _loss(history).mark))
    target = (run.target or {}).get("auroc") if run else None
    auroc = val_auroc(history)
    if _has_auroc(history):
        now = f"{auroc:.3f}" if auroc is not None else "–"
        rows.append(Row("AUROC", f"{target:g}" if target else "–", now, _auroc(history).mark))
    rows.append(_convergence(history))
    return rows


def _rates(history: History, diagnosis: Diagnosis) -> list[Row]:
    schedule, run = diagnosis.schedule, history.run
    assert schedule is not None and run is not None
    expected = run.expected or {}
    lr, step = history.lr, history.step
    first = diagnosis.lr.situation.expected(1) if diagnosis.lr else initial_rate(schedule)
    rows = []
    saw_start = len(step) > 0 and step[0] == 1
    initial = expected.get("initial_lr", float(first))
    observed = float(lr[0]) if saw_start else None
    rows.append(_rate_row("initial LR", initial, observed, strict=True))
    peak = expected.get("peak_lr", peak_rate(declared_base(schedule)))
    highest = float(np.nanmax(lr)) if len(lr) else None
    reached = float(position_at(schedule, max(history.step_done, 1), run.steps_per_epoch))
    past_peak = bool(schedule.phases()) and reached >= schedule.phases()[0][2]
    if isinstance(schedule, Manual):  # a person left the declared peak behind: nothing to hold against the run
        rows.append(Row("peak LR", rate(peak), rate(highest) if highest is not None else "–"))
    else:
        peak_row = _rate_row("peak LR", peak, highest, strict=past_peak)
        mended = peak_row.mark == FAIL and diagnosis.lr is not None and diagnosis.lr.fault is None
        rows.append(replace(peak_row, mark=WARN) if mended else peak_row)  # an earlier attempt's fault, not one of now
    if len(lr) and diagnosis.lr is not None:
        planned = float(diagnosis.lr.situation.expected(int(step[-1])))
        mark = FAIL if diagnosis.lr.fault else PASS
        rows.append(Row("LR now", exact_rate(planned, float(lr[-1])), exact_rate(float(lr[-1]), planned), mark))
    ended = bool(run.total_steps) and history.step_done >= (run.total_steps or 0)
    final = expected.get("final_lr", final_rate(schedule))
    rows.append(_rate_row("final LR", final, float(lr[-1]) if ended and len(lr) else None, strict=True))
    return rows


def _rate_row(metric: str, expected: float, observed: float | None, *, strict: bool) -> Row:
    if observed is None:
        return Row(metric, rate(expected), "–")
    same = bool(np.isclose(observed, expected, rtol=1e-3, atol=0))
    mark = PASS if same else FAIL if strict else WAIT
    return Row(metric, rate(expected), rate(observed), mark)


def _convergence(history: History) -> Row:
    """Mean loss of the newest quarter of the run against the quarter before it."""
    loss = history.loss
    quarter = len(loss) // 4
    if quarter < 50:
        return Row("convergence", "falling", "–", WAIT)
    last, before = float(np.nanmean(loss[-quarter:])), float(np.nanmean(loss[-2 * quarter : -quarter]))
    change = last / before - 1 if before else 0.0
    word = "falling" if change < -0.005 else "rising" if change > 0.005 else "level"
    return Row("convergence", "falling", f"{word} {100 * change:+.1f} %", WARN if word == "rising" else PASS)
