"""Splits of a data set: which ids two of them share, which windows overlap in time, and what is compared elsewhere.

Two splits of one process are compared as they are. A split of another rank, another attempt or another run of the same
model is compared by hashes of its ids: all of a small split, of a large one those whose hash divides by a power of two.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = 5  # shared ids that a record names
SIGNAL = 64  # numbers of an array from which on it is a signal and no id
HASHED = 256  # hashes of a split that its record holds, at most twice as many
TRAIN, VAL, TEST = "train", "val", "test"
KINDS = {TRAIN: ("train", "fit"), VAL: ("val", "dev"), TEST: ("test", "eval", "held")}  # by a part of the name


class Splits:
    """The ids of each split that was declared. `waiting`: names whose records have not been taken yet."""

    def __init__(self) -> None:
        self._known: dict[str, set[Any]] = {}
        self.waiting: list[str] = []

    def declare(self, name: str, ids: Iterable[Any]) -> None:
        """Declare a split (again: in place of the old one). Raises TypeError for ids that cannot be looked up."""
        listed: Any = ids
        if hasattr(ids, "tolist") and getattr(ids, "ndim", 1) < 2:  # an array of ids, and no array of signals
            listed = ids.tolist()
        self._known[name] = {_comparable(one) for one in listed}
        if name not in self.waiting:
            self.waiting.append(name)

    def take(self) -> list[dict[str, Any]]:
        """Of each split that waits {"name", "n", "shared": {other: {"n", "ids"}}, "every", "hashes"}."""
        names, self.waiting = self.waiting, []
        return [self._values(name) for name in names]

    def add(self, name: str, ids: Iterable[Any]) -> dict[str, Any]:
        """Declare a split and take its values."""
        self.declare(name, ids)
        self.waiting.remove(name)
        return self._values(name)

    def trained(self) -> dict[str, dict[str, Any]]:
        """The hashes of the splits that are trained on, by name."""
        return {name: sketched(ids) for name, ids in self._known.items() if kind_of(name) == TRAIN}

    def _values(self, name: str) -> dict[str, Any]:
        own = self._known[name]
        shared: dict[str, dict[str, Any]] = {}
        for other, known in self._known.items():
            if not are_apart(name, other):
                continue
            both = own & known or _overlapping(own, known)
            if both:
                shared[other] = {"n": len(both), "ids": sorted(map(str, both))[:SHOWN]}
        return {"name": name, "shared": shared, "kind": kind_of(name), **sketched(own)}


def kind_of(name: str) -> str | None:
    """Is a split of this name trained on, validated on or tested on? None where the name does not say."""
    found = [kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)]
    return found[0] if len(found) == 1 else None


def are_apart(name: str, other: str) -> bool:
    """Must two splits of these names share nothing?

    Two that are trained on may share ids, and two that are tested on (a harder part of the test set). So may splits of
    two folds: their names differ by their numbers and by more than these.
    """
    if name == other or (kind_of(name) is not None and kind_of(name) == kind_of(other)):
        return False
    numbers, others = re.findall(r"\d+", name), re.findall(r"\d+", other)
    folds = numbers and others and numbers != others and re.sub(r"\d+", "", name) != re.sub(r"\d+", "", other)
    return not folds


def sketched(ids: set[Any]) -> dict[str, Any]:
    """{"n", "every", "hashes"}: hashes of 52 bits of the ids, of about one in `every` of them."""
    every = 1
    while len(ids) > 2 * HASHED * every:
        every *= 2
    kept = (hash_of(one, every) for one in ids)
    return {"n": len(ids), "every": every, "hashes": sorted(one for one in kept if one is not None)}


def shared_hashes(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, int]:
    """(ids that two sketches share, ids of the first that were compared)."""
    every = max(one["every"], other["every"])
    own = {number for number in one["hashes"] if not number % every}
    return len(own.intersection(other["hashes"])), len(own)


def trained_before(values: Mapping[str, Any], earlier: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """{"before": [{"run", "split", "shared", "compared"}]} of a split that runs before have trained this model on."""
    found = []
    for run, splits in earlier if values.get("kind") in (VAL, TEST) else ():
        for name, known in splits.items():
            shared, compared = shared_hashes(values, known)
            if shared:
                found.append({"run": run, "split": name, "shared": shared, "compared": compared})
    return {"before": found} if found else {}


def hash_of(one: Any, every: int = 1) -> int | None:
    """A hash that is the same in every process, None where it does not divide by `every`, a power of two.

    Its lower 32 bits are a CRC, which is fast where most ids are left out. Numbers that are equal have the same.
    """
    whole = isinstance(one, float) and one.is_integer()
    text = repr(int(one) if whole else one).encode()
    crc = zlib.crc32(text)
    if crc % every:
        return None
    return (int.from_bytes(hashlib.blake2b(text, digest_size=3).digest(), "big") >> 4 << 32) | crc


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
