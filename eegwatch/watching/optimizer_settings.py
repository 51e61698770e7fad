"""The numbers that an optimizer was built with, and those that its groups have: a loaded state puts old ones back."""

from __future__ import annotations

from typing import Any

MOST_GROUPS = 16  # whose settings are kept


def settings_of(optimizer: Any) -> dict[str, Any]:
    """{"built": name -> number or numbers, "groups": [the same of each group]}; switches are left out."""
    names = [name for name, given in optimizer.defaults.items() if _number(given) is not None]
    groups = optimizer.param_groups[:MOST_GROUPS]
    return {
        "built": {name: _number(optimizer.defaults[name]) for name in names},
        "groups": [
            {name: _number(group[name]) for name in (*names, "initial_lr") if _number(group.get(name)) is not None}
            for group in groups
        ],
    }


def _number(given: Any) -> float | list[float] | None:
    """A number, or several, as JSON has them; None of anything else."""
    if isinstance(given, tuple | list) and given:
        parts = [_number(one) for one in given]
        return None if any(not isinstance(one, float) for one in parts) else parts  # type: ignore[return-value]
    if hasattr(given, "numel") and hasattr(given, "item") and given.numel() == 1:
        given = given.item()
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None
