"""Rules over the losses that a step was made of: their scale, their number, and what of the logged loss was trained."""

from __future__ import annotations

from math import frexp

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Violation
from eegwatch.run.records import Watch, number

NEAR = 1e-3  # relative: factors between gradients, whatever their type
LEAST_SCALE = 2.0  # of a gradient scaler: below it, scaled and unscaled gradients are not told apart
ONE_SCALER = (
    "make one gradient scaler, before the loop: a new one begins with its first scale again; declare the one that is "
    "used (scaler=)"
)


def gradient_scale(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    if "seeded" in values:
        return Violation(
            f"backward() of step {record.step:,} was given {number(values['seeded']):.6g}, the loss itself, as the "
            "gradient of the loss: all gradients are multiplied by it",
            "call loss.backward() without an argument",
            fact=True,
        )
    late = _divided_by_the_next(record, attempt)
    scale, used = number(values.get("scale")), number(values.get("used"))
    if late is not None or not scale >= LEAST_SCALE or not used > 0:
        return late
    before = number(values.get("before"))
    if not values.get("unscaled_mean") and before > 0 and _near(used * scale, 1.0):
        return Violation(
            f"the gradients of step {record.step:,} were divided by the scale of {scale:g}, and the scale was "
            f"{before:g} when backward() made them",
            "call scaler.update() once, after the steps of all optimizers",
        )
    if values.get("unscaled_mean") and _near(used * scale, 1.0):
        return Violation(
            f"the gradients of step {record.step:,} were divided by the scale of {scale:g}, and its loss was not "
            "multiplied by it",
            "call scaler.scale(loss).backward()",
        )
    factor = number(values.get("factor"))
    if _near(factor, scale) and _near(used, 1.0):
        return Violation(
            f"the loss of step {record.step:,} was multiplied by the scale of {scale:g}, and the step used its "
            "gradients undivided",
            "call scaler.step(optimizer) in place of optimizer.step()",
        )
    return True if _near(factor, scale) else None


def _divided_by_the_next(record: Watch, attempt: Attempt) -> Violation | None:
    """Was the last step's gradient divided by the scale of this one, and not by its own?"""
    values, opt = record.values, int(record.values.get("opt", 0))
    factor, used = number(values.get("factor")), number(values.get("used"))
    before, attempt.scaled[opt] = attempt.scaled.get(opt), (factor, used)
    if before is None or not _power_of_two(factor) or not _power_of_two(before[0]) or _near(factor, before[0]):
        return None
    if not _near(before[1] * factor, 1.0) or _near(before[1] * before[0], 1.0):
        return None
    return Violation(
        f"the loss of the step before step {record.step:,} was multiplied by {before[0]:g}, and its gradients were "
        f"divided by {factor:g}, the scale of step {record.step:,}",
        "divide the gradients by the scale that the loss was multiplied by; change the scale after the step",
        fact=True,
    )


def scaler_not_used(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    scale, factor = number(values.get("scale")), number(values.get("factor"))
    if not scale >= LEAST_SCALE or not factor >= LEAST_SCALE or int(values.get("passes", 0)) != 1:
        return None
    if values.get("apart") and _power_of_two(factor) and _near(number(values.get("used")) * factor, 1.0):
        return Violation(
            f"the loss of step {record.step:,} was multiplied by {factor:g}, and its gradients were divided by it, but "
            "not by the declared gradient scaler: there is another one",
            ONE_SCALER,
        )
    if _near(factor, scale):
        return True
    if values.get("products") != 1 or not _power_of_two(factor):
        return None
    return Violation(
        f"the loss of step {record.step:,} was multiplied by {factor:g}, and the scale of the declared gradient scaler "
        f"is {scale:g}: another one scales the loss",
        ONE_SCALER,
    )


def losses_added_up(record: Watch, attempt: Attempt) -> Judgement:
    """Micro-batches that are means and are not divided, where log.micro() is not called."""
    values = record.values
    declared, passes = int(attempt.declared.get("accumulate", 0) or 0), int(values.get("passes", 0))
    if "gathered" in values:
        return Violation(
            f"the loss of step {record.step:,} is made of what {values['gathered']} ranks have computed, of which the "
            "own part alone has a graph, and the gradients are averaged over the ranks: they are "
            f"1/{values['gathered']} of that of the whole loss",
            "multiply the loss by the number of ranks, or gather with torch.distributed.nn.functional.all_gather",
            fact=True,
        )
    if passes == 1:
        return _times_the_ranks(record, declared)
    used, scale = number(values.get("used")), number(values.get("scale"))
    once = declared == passes and "products" in values and _near(number(values.get("factor")), 1 / passes)
    if once and _near(used, 1 / passes):
        return Violation(
            f"the losses of the {passes} micro-batches of step {record.step:,} were divided by {passes}, and their "
            f"gradients by {passes} once more",
            "divide the losses or the gradients by the number of micro-batches, not both",
            fact=True,
        )
    if "plain" not in values or declared < 2 or passes != declared or not used > 0:
        return None
    used *= scale if scale >= LEAST_SCALE and not values.get("unscaled_mean") else 1.0
    if values["plain"] != passes or _near(used * passes, 1.0):
        return True if _near(used, 1.0) or _near(used * passes, 1.0) else None
    clipped = "clip" in attempt.declared and used < 1
    if not _near(used, 1.0) and not clipped:
        return None  # divided by something else, by hand
    return Violation(
        f"the {passes} micro-batches of step {record.step:,} are added up and not averaged: each loss is a mean, and "
        "none is divided",
        "divide each loss by the number of micro-batches; dismiss this if their sum is meant",
        fact=True,
    )


def _times_the_ranks(record: Watch, declared: int) -> Judgement:
    """The loss of backward() against the logged one, where its gradients are averaged over the ranks."""
    values = record.values
    world, factor = int(values.get("world", 1)), number(values.get("factor"))
    if world < 2 or declared > 1 or not factor > 0:
        return None
    more = _near(factor, world)
    if more and not values.get("own_mean"):
        return None  # a loss over what was gathered from all ranks
    if not more and not _near(factor * world, 1.0):
        return None
    return Violation(
        f"the loss of step {record.step:,} was {'multiplied' if more else 'divided'} by the number of ranks, {world}, "
        "and its gradients are averaged over the ranks all the same",
        "DistributedDataParallel averages: call backward() on the mean over the own items of each rank",
        fact=True,
    )


def loss_trained_twice(record: Watch, attempt: Attempt) -> Judgement:
    if not record.values.get("twice"):
        return None
    return Violation(
        f"backward() was called twice on the same loss before step {record.step:,}: its gradient counts twice",
        "call backward() once for each loss (retain_graph=True is for other losses of the same graph)",
        fact=True,
    )


def loss_not_trained(record: Watch, attempt: Attempt) -> Judgement:
    untrained = record.values.get("untrained")
    if untrained is None:
        return True
    return Violation(
        f"the loss that is logged for step {record.step:,} is a sum, and backward() was not called for a part of it "
        f"({untrained}) that depends on the parameters",
        "call backward() on the whole loss, or detach() what is to be shown alone",
    )


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= NEAR * abs(other)


def _power_of_two(factor: float) -> bool:
    """Is it one, as far as a quotient of two float32 losses tells?"""
    return factor > 0 and min(abs(frexp(factor)[0] - half) for half in (0.5, 1.0)) < NEAR / 10


RULES = (
    SilentRule("gradient_scale", "loss", True, gradient_scale),
    SilentRule("scaler_not_used", "loss", False, scaler_not_used),
    SilentRule("microbatch_weights", "loss", True, losses_added_up),
    SilentRule("gradient_applied_twice", "loss", True, loss_trained_twice),
    SilentRule("loss_not_trained", "loss", False, loss_not_trained),
)
