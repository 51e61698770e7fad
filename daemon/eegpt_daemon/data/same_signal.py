"""Recordings of a corpus that hold the same signal, found by the fingerprints in the cache's index."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eegpt_daemon.data.corpus import Entry
from eegpt_daemon.data.signal_fingerprint import KEPT_OF, kept_of

LEAST_SHARED = 2  # kept seconds of two recordings that are equal: one may be a test signal
MOST_HOLDERS = 8  # recordings that share a second; of more it is a test signal, and no one's own
SHOWN = 5
ORDER = ("train", "val", "eval")  # of two recordings, the one for training is named first


@dataclass(frozen=True)
class SharedSignal:
    """Two recordings that share about `seconds` of their signal; `whole`: all of it."""

    one: Entry
    other: Entry
    seconds: int
    whole: bool


def same_signals(signals: Iterable[tuple[Entry, dict[str, Any]]]) -> list[SharedSignal]:
    """Every pair that holds the same signal, in the order of the entries; `signals`: fingerprints."""
    usable = [(entry, signal) for entry, signal in signals if signal.get("whole")]
    by_whole: dict[str, list[int]] = defaultdict(list)
    by_second: dict[int, list[int]] = defaultdict(list)
    for number, (_, signal) in enumerate(usable):
        by_whole[signal["whole"]].append(number)
        for second in kept_of(signal):
            by_second[second].append(number)
    pairs = {(a, b): True for alike in by_whole.values() for a, b in itertools.pairwise(alike)}
    shared: Counter[tuple[int, int]] = Counter()
    for holders in by_second.values():
        if len(holders) <= MOST_HOLDERS:
            shared.update((a, b) for i, a in enumerate(holders) for b in holders[i + 1 :])
    for pair, seconds in shared.items():
        a, b = (usable[number][1]["whole"] for number in pair)
        if seconds >= LEAST_SHARED and a != b:
            pairs[pair] = False
    return [
        SharedSignal(usable[a][0], usable[b][0], usable[a][1]["seconds"] if whole else shared[a, b] * KEPT_OF, whole)
        for (a, b), whole in sorted(pairs.items())
    ]


def signals_look(signals: list[tuple[Entry, dict[str, Any]]]) -> dict[str, Any]:
    """The values of a `signals` record: pairs in two splits, in two classes, and twice within one of both."""
    signals = sorted(signals, key=lambda pair: ORDER.index(pair[0].split))
    pairs = same_signals(signals)
    return {
        "compared": sum(bool(signal.get("whole")) for _, signal in signals),
        "recordings": len(signals),
        "splits": _some([p for p in pairs if p.one.split != p.other.split]),
        "classes": _some([p for p in pairs if p.one.label != p.other.label]),
        "twice": _some([p for p in pairs if (p.one.split, p.one.label) == (p.other.split, p.other.label)]),
    }


def _some(pairs: list[SharedSignal]) -> dict[str, Any]:
    shown = [[_called(p.one), _called(p.other), p.seconds, p.whole] for p in pairs[:SHOWN]]
    return {"n": len(pairs), "shown": shown}


def _called(entry: Entry) -> str:
    """The recording's name in logs, with the split if it differs from the folder's."""
    name = entry.alias or entry.relative
    return f"{name} (validation)" if entry.split == "val" else name
