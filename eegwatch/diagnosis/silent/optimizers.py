"""Rules over what an optimizer is set to: settings that a resume puts back, settings that its step does not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Values, Violation, seen_in_a_row
from eegwatch.diagnosis.silent.runs import optimizer_at_checkpoint
from eegwatch.run.records import Watch, number

REPEATED = 3  # looks in a row: one alone may be a warm-up, or a step that is made otherwise
ALIKE = 1e-3  # relative: two rates that are the same
CHANGED = 0.1  # relative: a rate that a schedule has clearly moved
CLEARLY_ABOVE = 1.01
FORMULAS = {"plain": "plain SGD", "sgd": "SGD with momentum", "adam": "Adam"}
DECAYS, RATES, MOMENTUM, LIMIT, RATE = "its weight decay", "two rates", "its momentum", "its limit", "the group's rate"
AS_NUMBER = "the decay"
WHAT = (DECAYS, RATES, MOMENTUM, LIMIT, RATE)


def settings_put_back(record: Watch, attempt: Attempt) -> Judgement:
    """What the optimizer is built with was changed for a resume, and the loaded state has the old value again."""
    values, saved = record.values, attempt.states.get(record.step)
    if values.get("when") != "begin" or saved is None:
        return None
    judged = False
    for now in values.get("optimizers", []):
        before = optimizer_at_checkpoint(saved, now)
        if before is None or "settings" not in before or "settings" not in now or before["name"] != now["name"]:
            continue
        judged = True
        found = _put_back(before["settings"], now["settings"])
        if found is not None:
            name, group, old, new = found
            return Violation(
                f"the optimizer was built with {name}={_shown(new)} for this resume, and group {group} has {name}="
                f"{_shown(old)}, as at the checkpoint of step {record.step:,}: load_state_dict() puts the settings of "
                "the checkpoint back",
                f"set {name} of each parameter group after load_state_dict(); dismiss this if the old value is meant",
            )
    return True if judged else None


def _put_back(before: Values, now: Values) -> tuple[str, int, Any, Any] | None:
    """(name, group, value of the checkpoint, value that the optimizer was built with) of the first setting put back."""
    if len(before["groups"]) != len(now["groups"]):
        return None
    for name, new in now["built"].items():
        old = before["built"].get(name)
        if old is None or old == new:
            continue
        for group, (then, there) in enumerate(zip(before["groups"], now["groups"])):
            scheduled = name == "lr" and "initial_lr" in there  # its scheduler may hold the new one
            if then.get(name) == old == there.get(name) and not scheduled:
                return name, group, old, new
    return None


def _shown(value: Any) -> str:
    """A number, or several, as a person writes them."""
    return f"({', '.join(f'{one:g}' for one in value)})" if isinstance(value, list) else f"{value:g}"


# ---- optimizers of the script's own ----


def update_ignores_setting(record: Watch, attempt: Attempt) -> Judgement:
    """A step that coincides with a known formula in all elements, look after look, but for one setting of its group."""
    return _lasting(record, attempt, WHAT)


def own_update_differs(record: Watch, attempt: Attempt) -> Judgement:
    """A step that coincides with a known formula, look after look, with another decay than any that is known."""
    return _lasting(record, attempt, (AS_NUMBER,))


def _lasting(record: Watch, attempt: Attempt, kinds: Sequence[str]) -> Judgement:
    own = record.values.get("own")
    if own is None:
        return None
    shown: dict[str, tuple[str, str]] = {}
    for group in own["groups"]:
        for what, words, remedy in _ignored(group):
            shown.setdefault(what, (words, remedy))
    lasting = [
        what for what in kinds if seen_in_a_row(attempt, f"own update: {what}", record, what in shown) >= REPEATED
    ]
    if not lasting:
        return None if shown.keys() & set(kinds) else True
    words, remedy = shown[lasting[0]]
    return Violation(
        f"step {record.step:,} of this optimizer is that of {FORMULAS[own['formula']]} in all elements that were read: "
        f"{lasting[0]}{words}",
        remedy,
        f"so were the {REPEATED - 1} looks before it",
        fact=True,
    )


def _ignored(group: Values) -> Iterator[tuple[str, str, str]]:
    """(what had no part in the step of a group, how that shows, what to look at)."""
    lr, rate, first = number(group["lr"]), number(group["rate"]), group.get("first")
    if group.get("without") == "weight_decay":
        yield (
            DECAYS,
            f" of {number(group['value']):g} had no part in it",
            "look at how the step uses group['weight_decay']; set it to 0 if none is meant",
        )
    if group.get("as_number"):
        yield (
            AS_NUMBER,
            f" of {number(group['value']):g} is taken off every weight as a number (times the rate), and "
            "not as that share of it",
            "multiply the decay by the weight: p.add_(p, alpha=-lr * weight_decay)",
        )
    if "warm_up" in group:
        yield (
            RATES,
            f": the decay takes the group's {lr:.6g}, the rest of the step {rate:.6g}, which is warmed up over "
            f"{number(group['warm_up']):.4g} steps",
            "use one rate for both; dismiss this if the decay is not to be warmed up",
        )
    if "momentum" in group and abs(rate / lr - 1) <= ALIKE:
        yield (
            MOMENTUM,
            f" of {number(group['momentum']):g} had no part in it",
            "keep the momentum in self.state[parameter], from step to step",
        )
    clip = group.get("clip")
    if clip is not None and abs(rate / lr - 1) <= ALIKE and _exceeds(clip):
        yield (
            LIMIT,
            f" {clip['name']}={number(clip['limit']):g} had no part in it, though a tensor's gradient has "
            f"a norm of {number(clip['norm']):.4g}",
            "give the clipped gradient to what makes the update",
        )
    if first is not None and abs(lr / number(first["lr"]) - 1) > CHANGED:
        stands = abs(rate / number(first["rate"]) - 1) <= ALIKE
        if stands and abs(number(first["rate"]) / number(first["lr"]) - 1) <= ALIKE:
            yield (
                RATE,
                f" is {lr:.6g} by now, and it still takes {rate:.6g}, as when that was the group's",
                "read group['lr'] within step(): a rate that is kept elsewhere follows no scheduler",
            )


def _exceeds(clip: Values) -> bool:
    """Are the gradients above the limit, whether that is one of a norm or of each value?"""
    above = CLEARLY_ABOVE * number(clip["limit"])
    by_value = "norm" not in str(clip["name"]) and number(clip["largest"]) <= above
    return number(clip["norm"]) > above and not by_value


RULES = (
    SilentRule("settings_put_back", "state", False, settings_put_back),
    SilentRule("update_ignores_setting", "step", False, update_ignores_setting),
    SilentRule("update_differs", "step", True, own_update_differs),
)
