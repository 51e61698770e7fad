"""Splits of a data set: which ids two of them share, and which windows overlap in time."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from typing import Any

SHOWN = 5  # shared ids that a record names
SIGNAL = 64  # numbers of an array from which on it is a signal and no id


class Splits:
    """The ids of each split that was declared."""

    def __init__(self) -> None:
        self._known: dict[str, set[Any]] = {}

    def add(self, name: str, ids: Iterable[Any]) -> dict[str, Any]:
        """Declare a split (again: in place of the old one). Returns {"name", "n", "shared": {other: {"n", "ids"}}}."""
        listed: Any = ids
        if hasattr(ids, "tolist") and getattr(ids, "ndim", 1) < 2:  # an array of ids, and no array of signals
            listed = ids.tolist()
        own = {_comparable(one) for one in listed}
        shared: dict[str, dict[str, Any]] = {}
        for other, known in self._known.items():
            if other == name:
                continue
            both = own & known or _overlapping(own, known)
            if both:
                shared[other] = {"n": len(both), "ids": sorted(map(str, both))[:SHOWN]}
        self._known[name] = own
        return {"name": name, "n": len(own), "shared": shared}


def _comparable(one: Any) -> Any:
    """An id that can be looked up: lists and arrays as tuples, tensors and numpy scalars as numbers, paths as text.

    An array of many numbers is a signal: it is compared by a hash of its samples, whatever it is called.
    """
    if isinstance(one, os.PathLike):
        return os.fspath(one)
    if hasattr(one, "tolist"):
        if getattr(one, "ndim", 0) and math.prod(one.shape) > SIGNAL:
            one = one.detach().cpu().numpy() if hasattr(one, "detach") else one
            return "a signal of hash " + hashlib.blake2b(one.tobytes(), digest_size=8).hexdigest()
        one = one.tolist()
    return tuple(_comparable(part) for part in one) if isinstance(one, list | tuple) else one


def _is_window(one: Any) -> bool:
    """Is this (recording, start, stop)?"""
    return (
        isinstance(one, tuple)
        and len(one) == 3
        and all(isinstance(end, int | float) for end in one[1:])
        and one[1] < one[2]
    )


def _overlapping(some: set[Any], others: set[Any]) -> set[Any]:
    """The windows of the first that lie in part within one of the second, where all of both are windows."""
    if not some or not others or not all(map(_is_window, some)) or not all(map(_is_window, others)):
        return set()
    found: set[Any] = set()
    for recording in {one[0] for one in some} & {one[0] for one in others}:
        marked = [(start, stop, True) for name, start, stop in some if name == recording]
        marked += [(start, stop, False) for name, start, stop in others if name == recording]
        reach = {True: float("-inf"), False: float("-inf")}  # how far the windows of each split have reached
        last: dict[bool, tuple[float, float]] = {}
        for start, stop, mine in sorted(marked):
            if start < reach[not mine]:
                window = (start, stop) if mine else last[True]
                found.add((recording, *window))
            if stop > reach[mine]:
                reach[mine], last[mine] = stop, (start, stop)
    return found
