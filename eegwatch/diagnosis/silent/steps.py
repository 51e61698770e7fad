"""Rules over one optimizer step: its gradients, the update that it made, what it moved, what it was set to."""

from __future__ import annotations

from typing import Any

from eegwatch.diagnosis.silent.rule import (
    Attempt,
    Judgement,
    SilentRule,
    Values,
    Violation,
    names,
    seen_in_a_row,
    unless,
)
from eegwatch.run.records import Watch, number

WITHIN = 1e-3  # relative: a norm that was clipped is its limit so nearly (clip_grad_norm_ adds 1e-6 to the divisor)
CLOSELY = 3e-5  # relative: the same in float32, where nothing else explains the norm
COARSE = 8.0  # units of a half-precision type that the norm of its numbers is off by
LASTING = 10  # looks in a row at which nearly nothing moves
REPEATED = 3  # steps or looks in a row: one alone may be meant for something else
FIRST = 20  # steps that are all looked at
LEAST_SCALE = 2.0  # of a gradient scaler: below it, scaled and unscaled gradients are not told apart
NOT_CLEARED = "call optimizer.zero_grad() once for every optimizer step, before its first backward()"


def gradients_not_cleared(record: Watch, attempt: Attempt) -> Judgement:
    kept, others = record.values.get("kept"), record.values.get("others")
    if kept is None:
        told = "gradients_of_others", int(record.values.get("opt", 0))
        attempt.in_a_row[told] = attempt.in_a_row.get(told, 0) + (others is not None)
        if others is None:
            return None if attempt.in_a_row[told] else True
        return Violation(
            f"step {record.step:,} holds the gradient of a pass that was made for another optimizer's step: it was "
            f"still in {names(others)} when this optimizer's own backward() began",
            "call zero_grad() of this optimizer before its own backward(): after its step is too early where the pass "
            "of another one reaches its tensors; dismiss this if it is to learn from both",
            fact=True,
        )
    if record.values.get("of_evaluation"):
        return Violation(
            f"gradients that the evaluation before it made are part of step {record.step:,}: {names(kept)} "
            f"({number(kept.get('value')):.6g} was still there when backward() added to it)",
            "call backward() in training alone, or optimizer.zero_grad() after the evaluation",
        )
    return Violation(
        f"the gradient of the step before is part of step {record.step:,}'s: {names(kept)} "
        f"({number(kept.get('value')):.6g} was still there when backward() added to it)",
        NOT_CLEARED,
        "nothing cleared the gradients between the two steps",
    )


@unless("again")
def gradient_applied_twice(record: Watch, again: Any) -> Violation:
    return Violation(
        f"step {record.step:,} used the gradient of the step before once more: no backward() came between them "
        f"({names(again)})",
        "call optimizer.step() once for each gradient; with a gradient scaler only scaler.step(optimizer)",
    )


@unless("nothing")
def nothing_to_train(record: Watch, nothing: Any) -> Violation:
    return Violation(
        f"none of the {nothing} tensors that the optimizer holds is trainable, and none has a gradient: step "
        f"{record.step:,} changed nothing",
        "set requires_grad=True on what is to be trained, and give that to the optimizer",
    )


def update_lost(record: Watch, attempt: Attempt) -> Judgement:
    update, stood = record.values.get("update"), bool(record.values.get("stood"))
    if seen_in_a_row(attempt, "update_lost", record, stood) >= LASTING:
        return Violation(
            f"step {record.step:,} left all weights that were read as they were, as the {LASTING - 1} looks before it: "
            "they have gradients, and the optimizer counts its steps",
            "look at what step() leaves out before it comes to the weights",
            fact=True,  # an optimizer may gather gradients over many steps
        )
    if stood:
        return None
    if update is None:
        return True if record.values.get("looked") else None
    if not update.get("still"):
        return True
    return Violation(
        f"step {record.step:,} left {_tensors(update['still'])} as it was, {_element(update, attempt)}",
        "the optimizer's step does not reach these tensors: compare it with the same step on the CPU, foreach=False",
        f"its gradient is {number(update['gradient']):.6g} and its rate {number(update['lr']):.6g}",
    )


def update_differs(record: Watch, attempt: Attempt) -> Judgement:
    update = record.values.get("update")
    if update is None:
        return True if record.values.get("looked") else None
    if update.get("still") == update.get("broken"):
        return True
    as_if = update.get("as_if")
    return Violation(
        f"step {record.step:,} made another update than its settings say: {_element(update, attempt)}"
        + (f"; the step was taken {as_if}" if as_if else "")
        + f" ({_tensors(update['broken'])})",
        "the parameter group says one thing and the step does another: compare it with foreach=False, fused=False",
        str(as_if or ""),
    )


def update_rounded_away(record: Watch, attempt: Attempt) -> Judgement:
    rounded = record.values.get("rounded")
    if rounded is None and not record.values.get("looked"):
        return None
    looks = seen_in_a_row(attempt, "update_rounded_away", record, rounded is not None)
    if rounded is None:
        return True
    if looks < LASTING:
        return None  # a warm-up begins with small steps
    return Violation(
        f"step {record.step:,} left {rounded['n']} of {rounded['of']} elements as they were: they should move by less "
        "than half a unit in the last place of their type",
        "keep the weights in float32 (autocast computes in bfloat16), or round them by chance",
    )


def optimizer_state_forgotten(record: Watch, attempt: Attempt) -> Judgement:
    forgotten = record.values.get("forgotten")
    if forgotten is None:
        return None
    had = f"and had counted {number(forgotten['before']):,.0f} earlier in this run" if "before" in forgotten else ""
    return Violation(
        f"the optimizer's state of {names(forgotten)} is lost before step {record.step:,}: it "
        + (f"has counted {number(forgotten['count']):,.0f} steps, {had}" if had else "has no momentum, and had one"),
        "build the optimizer once, before the loop; fresh_optimizer=True if an empty one is meant",
        fact=True,
    )


def optimizer_state_stands(record: Watch, attempt: Attempt) -> Judgement:
    stands = bool(record.values.get("stands"))
    looks = seen_in_a_row(attempt, "optimizer_state_stands", record, stands)
    if not stands:
        return True if record.values.get("formula") else None
    if looks < REPEATED:
        return None
    return Violation(
        f"step {record.step:,} moved the weights, and the optimizer's own count of steps (state['step']) stands: "
        "corrections and warm-ups that use it stay where they are",
        "count state['step'] up in the optimizer's step()",
    )


@unless("unfollowed")
def schedule_of_another(record: Watch, unfollowed: Any) -> Violation:
    return Violation(
        "the schedule and the logged rates are those of another optimizer of the same tensors, which has taken no "
        f"step until step {record.step:,}",
        "build the scheduler from the optimizer whose step() is called, after it was built anew",
    )


def lr_stays_zero(record: Watch, attempt: Attempt) -> Judgement:
    zero = bool(record.values.get("no_rate"))
    looks = seen_in_a_row(attempt, "lr_stays_zero", record, zero)
    if not zero:
        return True
    if looks < REPEATED:
        return None  # a warm-up begins with it, a decay ends with it
    return Violation(
        f"the rate of every parameter group is 0 at step {record.step:,}, as at the steps before it: nothing trains",
        "compare the length of the schedule and its factors with the run: it has ended before the run does",
    )


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' if count != 1 else ''}"


def _element(update: Values, attempt: Attempt) -> str:
    """Got and want of the element that is farthest off."""
    optimizers = attempt.attached.get("optimizers") or []
    name = str(optimizers[0]["name"]) if len(optimizers) == 1 else "the optimizer"
    before, got, want = (number(update[key]) for key in ("before", "got", "want"))
    digits = next((d for d in range(6, 18) if f"{got:.{d}g}" != f"{want:.{d}g}"), 17) + 1
    return (
        f"{update['name']}[{update['element']}] is {got:.{digits}g}, {name} at {number(update['lr']):.6g} makes "
        f"{want:.{digits}g} of {before:.{digits}g} (rounding: {number(update['bound']):.1g})"
    )


@unless("moved")
def frozen_moves(record: Watch, moved: Any) -> Violation:
    return Violation(
        f"step {record.step:,} moved {names(moved)}, which {'is' if moved['n'] == 1 else 'are'} frozen "
        "(requires_grad=False): an old gradient is still there, momentum and weight decay go on",
        "set .grad = None when you freeze a tensor, or build the optimizer without it",
    )


def frozen_changed(record: Watch, attempt: Attempt) -> Judgement:
    if "frozen" not in attempt.declared:
        return None
    changed = record.values.get("frozen")
    if changed is None:
        return True
    return Violation(
        f"{names(changed)} changed, though declared frozen: not what it was before the first step",
        "set requires_grad=False and call .eval() on what is frozen, and leave it out of the optimizer",
    )


def off_schedule(record: Watch, attempt: Attempt) -> Judgement:
    off, empty = record.values.get("off") or [], record.values.get("empty")
    if not off:
        beyond = record.values.get("beyond")
        if beyond is not None and empty is None:
            return Violation(
                f"{beyond['name']} is declared for {beyond['groups']} parameter groups, and the optimizer has "
                f"{beyond['have']}",
                "look at how the parameters are divided among the groups",
                fact=True,
            )
        if empty is None:
            return True
        return Violation(
            f"parameter group {empty['group']} holds no tensor, though {empty['name']} has a schedule of its own there",
            "look at the condition that divides the parameters among the groups",
            fact=True,
        )
    first = off[0]
    groups = sorted({int(one["group"]) for one in off if one["name"] == first["name"]})
    where = f" of group {groups[0]}" if len(groups) == 1 else f" of groups {', '.join(map(str, groups))}"
    others = sorted({str(one["name"]) for one in off} - {str(first["name"])})
    return Violation(
        f"{first['name']}{where} is {number(first['got']):.6g} at step {record.step:,}, its schedule says "
        f"{number(first['want']):.6g}" + (f"; {', '.join(others)} is off too" if others else ""),
        f"set {first['name']} of every parameter group before each step, or declare what is meant: scheduled=",
    )


def empty_group(record: Watch, attempt: Attempt) -> Judgement:
    empty = record.values.get("empty")
    if empty is None or empty["name"] in attempt.declared.get("scheduled", []):
        return None if empty is not None else True  # off_schedule speaks of what is scheduled
    return Violation(
        f"parameter group {empty['group']} with a {empty['name']} of {number(empty['own']):g} holds no tensor: the "
        f"{empty['name']} of {names(empty)} is {number(empty['others']):g}",
        "look at the condition that divides the parameters among the groups",
    )


def clip_missing(record: Watch, attempt: Attempt) -> Judgement:
    clip, norm = record.values.get("clip", attempt.declared.get("clip")), number(record.values.get("norm"))
    if not clip or norm != norm or record.values.get("skipped"):
        return None
    near = max(WITHIN, COARSE * number(record.values.get("norm_unit", 0.0)))
    if norm <= float(clip) * (1 + near):
        return True
    return Violation(
        f"the gradient norm is {norm:.6g} at step {record.step:,}, above the declared clip of {float(clip):g}: "
        "these gradients were not clipped",
        "call clip_grad_norm_ on a list of the parameters (not on a generator that is used up), after unscale_() and "
        "before step()",
    )


def clip_before_unscale(record: Watch, attempt: Attempt) -> Judgement:
    clip, norm = record.values.get("clip", attempt.declared.get("clip")), number(record.values.get("norm"))
    scale = number(record.values.get("scale"))
    if not clip or not norm > 0 or not scale >= LEAST_SCALE or record.values.get("skipped"):
        return None
    near = max(CLOSELY, COARSE * number(record.values.get("norm_unit", 0.0)))
    alike = abs(norm * scale / float(clip) - 1) <= near
    looks = seen_in_a_row(attempt, "clip_before_unscale", record, alike)
    if not alike:
        return True
    if looks < 2 and (near > CLOSELY or int(record.values.get("count", 0)) > FIRST):
        return None  # in thousands of looks one norm comes as near by chance
    return Violation(
        f"the gradient norm is {norm:.6g} at step {record.step:,}: the clip of {float(clip):g} divided by the scale of "
        f"{scale:g}, so the gradients were clipped before they were unscaled",
        "call scaler.unscale_(optimizer) before clip_grad_norm_",
    )


@unless("strangers")
def optimizer_holds_strangers(record: Watch, strangers: Any) -> Violation:
    return Violation(
        f"the optimizer holds {strangers['n']} of {strangers['of']} tensors that are not the model's and get no "
        f"gradient, while {strangers['alive']} of the model's own have one and no optimizer",
        "build the optimizer after the model is copied, wrapped or moved, from the model that is trained",
    )


def not_in_optimizer(record: Watch, attempt: Attempt) -> Judgement:
    outside, unregistered = record.values.get("outside"), record.values.get("unregistered")
    if unregistered is not None:
        return Violation(
            f"the forward pass uses {names(unregistered)} that no watched model has registered and no watched "
            "optimizer holds: it stays as it is",
            "keep layers in nn.ModuleList or nn.ModuleDict, not in a list or a dictionary; watch the optimizer that "
            "holds them if there is one",
        )
    if outside is None:
        return True
    return Violation(
        f"no watched optimizer holds {names(outside)}, though trainable: it stays as it is",
        "give it to an optimizer, or set requires_grad=False if that is meant",
    )


@unless("twice")
def held_twice(record: Watch, twice: Any) -> Violation:
    return Violation(
        f"{names(twice)} {'is' if twice['n'] == 1 else 'are'} held by optimizer {twice['other']} too, and both step: "
        "each moves what the other trains",
        "build each optimizer from the part that it is to train; dismiss this if both are to train it",
    )


def no_gradient(record: Watch, attempt: Attempt) -> Judgement:
    none, resting = record.values.get("no_gradient"), record.values.get("resting")
    if "stray" in record.values and none is None:
        return Violation(
            f"a term of the loss before step {record.step:,} ({record.values['stray']}) reached no tensor of this "
            "optimizer, and those of another alone, which cleared its gradient unused",
            "leave detach() out of the term that this optimizer is to learn from, or leave the term out of its loss",
        )
    if resting is not None and none is None:
        return Violation(
            f"{resting['n']} of the {resting['of']} tensors that the optimizer holds are frozen since the first step: "
            f"{names(resting)}",
            "set requires_grad=True on what is to be trained; if it is meant to rest, declare it (frozen=) or give the "
            "optimizer the trainable tensors alone",
        )
    if none is None:
        return True
    return Violation(
        f"{none['n']} of {none['of']} tensors are trainable and had no gradient until step {record.step:,}: "
        f"{names(none)}",
        "use it in the loss (a checkpoint with use_reentrant=True needs an input with requires_grad), or set "
        "requires_grad=False if that is meant",
    )


@unless("eval_mode")
def train_mode_lost(record: Watch, lost: Any) -> Violation:
    if record.values.get("never"):
        return Violation(
            f"the first {FIRST} steps were taken in evaluation mode ({names(lost)}): dropouts are off, and batch norms "
            "use the statistics that they began with",
            "call model.train() before the loop (from_pretrained() returns a model in evaluation mode)",
        )
    return Violation(
        f"step {record.step:,} was taken in evaluation mode ({names(lost)}); before the evaluation, or "
        "in earlier steps, that was in training mode",
        "call model.train() after each evaluation",
    )


@unless("norms")
def frozen_batchnorm_moves(record: Watch, moving: Any) -> Violation:
    return Violation(
        f"the running statistics of {names(moving)} move, though {'its' if moving['n'] == 1 else 'their'} weights "
        "are frozen",
        'call .eval() on the frozen part before each step; frozen=["NAME"] in log.watch() proves that it stays',
    )


@unless("recomputed")
def recomputation_moves_statistics(record: Watch, moved: Any) -> Violation:
    return Violation(
        f"the running statistics of {names(moved)} move twice a step: activation checkpointing runs the forward pass "
        "again within backward()",
        "leave batch norms out of what is checkpointed, or set momentum to 1 - sqrt(1 - momentum) there",
    )


@unless("redrawn")
def recomputation_draws(record: Watch, drawn: Any) -> Violation:
    return Violation(
        f"{names(drawn)} drew another mask when backward() ran the forward pass again (activation checkpointing): the "
        "gradient is not that of the loss",
        "let checkpoint() restore the generators: preserve_rng_state=True",
    )


def frozen_draws(record: Watch, attempt: Attempt) -> Judgement:
    drawing = record.values.get("drawing")
    if drawing is None:
        return True if attempt.declared.get("frozen") else None
    return Violation(
        f"what was declared frozen draws at random: {names(drawing)} in training mode",
        "call .eval() on the frozen part before each step",
        "its weights do not move, but its features are other ones at each pass",
    )


RULES = (
    SilentRule("gradients_not_cleared", "step", True, gradients_not_cleared),
    SilentRule("gradient_applied_twice", "step", True, gradient_applied_twice),
    SilentRule("nothing_to_train", "step", False, nothing_to_train),
    SilentRule("update_lost", "step", True, update_lost),
    SilentRule("update_differs", "step", True, update_differs),
    SilentRule("update_rounded_away", "step", False, update_rounded_away),
    SilentRule("optimizer_state_lost", "step", True, optimizer_state_forgotten),
    SilentRule("optimizer_state_stands", "step", False, optimizer_state_stands),
    SilentRule("schedule_of_another", "step", False, schedule_of_another),
    SilentRule("lr_stays_zero", "step", False, lr_stays_zero),
    SilentRule("frozen_moves", "step", True, frozen_moves),
    SilentRule("frozen_changed", "step", True, frozen_changed),
    SilentRule("off_schedule", "scheduled", True, off_schedule),
    SilentRule("empty_group", "step", False, empty_group),
    SilentRule("clip_missing", "step", True, clip_missing),
    SilentRule("clip_before_unscale", "step", True, clip_before_unscale),
    SilentRule("optimizer_holds_strangers", "step", True, optimizer_holds_strangers),
    SilentRule("not_in_optimizer", "step", False, not_in_optimizer),
    SilentRule("held_twice", "step", False, held_twice),
    SilentRule("no_gradient", "step", False, no_gradient),
    SilentRule("train_mode_lost", "step", False, train_mode_lost),
    SilentRule("frozen_draws", "step", False, frozen_draws),
    SilentRule("recomputation_moves_statistics", "step", False, recomputation_moves_statistics),
    SilentRule("recomputation_draws", "step", False, recomputation_draws),
    SilentRule("frozen_batchnorm_moves", "step", False, frozen_batchnorm_moves),
)
