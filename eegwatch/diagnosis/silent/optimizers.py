"""Rules over what an optimizer is set to: settings that a resume puts back."""

from __future__ import annotations

from typing import Any

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Values, Violation
from eegwatch.diagnosis.silent.runs import optimizer_at_checkpoint
from eegwatch.run.records import Watch


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
        for number, (then, there) in enumerate(zip(before["groups"], now["groups"])):
            scheduled = name == "lr" and "initial_lr" in there  # its scheduler may hold the new one
            if then.get(name) == old == there.get(name) and not scheduled:
                return name, number, old, new
    return None


def _shown(value: Any) -> str:
    """A number, or several, as a person writes them."""
    return f"({', '.join(f'{one:g}' for one in value)})" if isinstance(value, list) else f"{value:g}"


RULES = (SilentRule("settings_put_back", "state", False, settings_put_back),)
