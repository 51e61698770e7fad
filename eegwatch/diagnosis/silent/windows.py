"""Rules over the micro-batches of one step: whether each is part of it, and how many there are."""

from __future__ import annotations

from eegwatch.diagnosis.silent.rule import (
    Attempt,
    Judgement,
    SilentRule,
    Violation,
    in_consecutive_steps,
    names,
    seen_in_a_row,
)
from eegwatch.run.records import Watch, number

REPEATED = 3  # steps or looks in a row: one alone may be meant for something else


def gradients_dropped(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    declared = int(values.get("accumulate", attempt.declared.get("accumulate", 0)) or 0)
    dropped = values.get("dropped")
    if dropped is not None:
        return Violation(
            f"step {record.step:,} found no gradient, though backward() had made them: {names(dropped)}",
            "call optimizer.zero_grad() before backward() or after step(), not between them",
        )
    passes, counted = int(values.get("passes", 0)), int(values.get("counted", 0))
    if declared < 2:
        return _cleared_unused(record, attempt)
    if not passes:
        return True
    if passes < declared:
        return None  # the tail of an epoch
    dropped = counted < declared
    looks = seen_in_a_row(attempt, "micro_gradients_dropped", record, dropped)
    again = _windows_thrown_away(record, attempt, exact=passes == declared, dropped=dropped)
    if not dropped:
        return True if not again else None
    each_time = passes == declared and int(values.get("begins", 0)) >= passes - 1
    fact = (not each_time or (passes == 2 and record.step > 1)) and looks < 2
    if fact and again < 2:
        return None  # a pass for something else, or of a step that failed, lies before the tail of an epoch
    return Violation(
        f"step {record.step:,} holds the gradient of {counted} of its {passes} micro-batches: "
        "the others were cleared before it",
        "call optimizer.zero_grad() once a step, not at every micro-batch, and not in the middle of a window",
        fact=fact,
    )


def _windows_thrown_away(record: Watch, attempt: Attempt, *, exact: bool, dropped: bool) -> int:
    """How many steps so far hold a part of the declared passes; 0 once a step had more: others are made as well."""
    key = "windows_thrown_away", int(record.values.get("opt", 0))
    known = attempt.in_a_row.get(key, 0)
    attempt.in_a_row[key] = -1 if known < 0 or not exact else known + dropped
    return max(attempt.in_a_row[key], 0)


def _cleared_unused(record: Watch, attempt: Attempt) -> Judgement:
    """Nothing is declared, and step after step passes were made whose gradients were cleared without a use."""
    cleared = int(record.values.get("cleared", 0))
    seen = seen_in_a_row(attempt, "gradients_cleared_unused", record, cleared > 0)
    rests = _rests_cleared(record, attempt, 0 if record.values.get("unlike") else cleared)
    if rests >= REPEATED:
        used = int(record.values["passes"]) - cleared
        return Violation(
            f"step {record.step:,} holds the gradients of {used} backward passes, and {cleared} before them were "
            f"cleared: so it was at {rests} steps so far",
            "take a step with what is left at the end of an epoch, or carry it into the next one; leave the passes out "
            "if their gradients are not to be used",
            fact=True,
        )
    if not seen:
        return True
    if seen < REPEATED:
        return None
    return Violation(
        f"step {record.step:,} holds the gradient of the last of {record.values['passes']} backward passes: those of "
        f"the {cleared} before it were cleared, and no step used them",
        "call optimizer.zero_grad() once a step; leave the passes out if their gradients are not to be used",
        fact=True,
    )


def _rests_cleared(record: Watch, attempt: Attempt, cleared: int) -> int:
    """At how many steps so far fewer passes were cleared than the step then used: the rest of an epoch."""
    number = int(record.values.get("opt", 0))
    used, count = ("rests_cleared: used", number), ("rests_cleared", number)
    if not cleared:
        return 0
    now = int(record.values["passes"]) - cleared
    alike = now > max(cleared, 1) and attempt.in_a_row.get(used, now) == now
    attempt.in_a_row[used] = now
    attempt.in_a_row[count] = attempt.in_a_row.get(count, 0) + 1 if alike else 0
    return attempt.in_a_row[count]


def ends_within_a_window(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    passes = f"{values['passes']} of " if "passes" in values else "a part of "
    return Violation(
        f"the run ended after step {record.step:,} with the gradients of {passes}{values['window']} micro-batches, "
        "which no step has used",
        "take a step after the last micro-batch of the run too, or leave out the micro-batches that make no whole step",
        fact=True,
    )


def accumulation_differs(record: Watch, attempt: Attempt) -> Judgement:
    declared = int(attempt.declared.get("accumulate", 0) or 0)
    most, least = int(record.values.get("passes", 0)), int(record.values.get("least", 0))
    if declared < 2 or not most:
        return None
    other = (most < declared or least > declared) and int(record.values.get("counted", 0)) == most
    steps = in_consecutive_steps(attempt, "accumulation_differs", record, other)
    if not steps:
        return True
    if steps < REPEATED:
        return None  # the tail of an epoch
    return Violation(
        f"step {record.step:,} holds {most} backward passes, as the {steps - 1} steps before it held another number "
        f"than the declared accumulate={declared}",
        "count the micro-batches over the whole run, not within an epoch that is shorter than the accumulation; or "
        "declare what is meant: accumulate=",
    )


def micro_gradients_shrunk(record: Watch, attempt: Attempt) -> Judgement:
    shrunk = record.values.get("shrunk")
    if shrunk is None:
        return True if int(record.values.get("passes", 0)) > 1 else None
    return Violation(
        f"what the first {shrunk['pass']} micro-batches of step {record.step:,} had made was multiplied by "
        f"{number(shrunk['factor']):.4g} before the next one was added",
        "call clip_grad_norm_ once a step, after its last backward()",
    )


RULES = (
    SilentRule("micro_gradients_dropped", "step", True, gradients_dropped),
    SilentRule("micro_gradients_dropped", "end", True, ends_within_a_window),
    SilentRule("accumulation_differs", "step", False, accumulation_differs),
    SilentRule("micro_gradients_shrunk", "step", False, micro_gradients_shrunk),
)
