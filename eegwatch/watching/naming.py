"""Names of tensors in a record: how many there are, and the first few of them."""

from __future__ import annotations

from typing import Any

NAMED = 5  # names that a record holds at most


def first_names(names: list[str]) -> dict[str, Any]:
    """How many there are, and the first few names."""
    return {"n": len(names), "names": names[:NAMED]}
