"""The text of a found law: its family and parameters, its end, and its alternatives."""

from __future__ import annotations

from typing import Any

from eegwatch.schedule import as_dict
from eegwatch.schedule.inference import Law
from eegwatch.wording import short_rate

NAMES = {
    "linear": "a line",
    "cosine": "a cosine",
    "polynomial": "a polynomial",
    "exponential": "an exponential decay",
    "inverse_sqrt": "an inverse square root",
    "cosine_restarts": "a cosine with restarts",
    "one_cycle": "a one-cycle",
    "cyclic": "a triangle wave",
    "warmup_stable_decay": "a hold and a decay",
    "sequence": "a hold and a decay",
}


def description(law: Law) -> str:
    """`a cosine from 3e-4 to 0 at step 10,000 (warm-up of 500 steps)`."""
    given = as_dict(law.schedule)
    peak = float(law.schedule.peak())
    parts = [f"{NAMES.get(law.name, law.name)} from {short_rate(peak)}"]
    if law.name == "polynomial":
        parts.append(f"of power {given['power']:g}")
    if law.name == "cosine_restarts":
        parts.append(_periods(given))
    elif law.name == "cyclic":
        parts = [f"a triangle wave between {short_rate(given['base_lr'])} and {short_rate(peak)}"]
    elif law.last_step < float("inf"):
        parts.append(f"to {short_rate(_final(law, given))} {ending(law)}")
    warmup = given.get("warmup_steps") or 0
    epochs = law.steps_per_epoch > 1
    notes = [f"warm-up of {warmup:g} {'epochs' if epochs else 'steps'}"] if warmup else []
    if epochs:
        notes.append(f"one move in {law.steps_per_epoch:,} steps")
    return " ".join(parts) + (f" ({', '.join(notes)})" if notes else "")


def described(law: Law) -> str:
    """The law and what it may still turn out to be."""
    others = f"; or {', or '.join(law.others)}" if law.others else ""
    return description(law) + others


def ending(law: Law) -> str:
    """`at step 10,000`, or `between step 9,800 and 10,300`."""
    if law.ends is not None and law.ends[0] != law.ends[1]:
        first, last = (law.begin + end * law.steps_per_epoch for end in law.ends)
        return f"between steps {first:,} and {last:,}"
    return f"at step {_end(law):,}"


def length_words(law: Law, total: int) -> str:
    """`this cosine ends at step 10,000; the run has 20,000 steps`."""
    name = NAMES.get(law.name, law.name).removeprefix("a ").removeprefix("an ")
    return f"this {name} ends at step {_end(law):,}; the run has {total:,} steps"


def _end(law: Law) -> int:
    """The step count at which the law has run its length: a total of 10,000 steps ends at step 10,000."""
    return law.schedule.total_steps * law.steps_per_epoch + max(law.begin - 1, 0)


def _final(law: Law, given: dict[str, Any]) -> float:
    if law.name == "one_cycle":
        return float(law.schedule.rate(law.schedule.total_steps - 1))
    return float(given.get("final_lr") or 0.0)


def _periods(given: dict[str, Any]) -> str:
    factor = f", each {given['T_mult']:g} times as long" if given.get("T_mult", 1) != 1 else ""
    return f"every {given['T_0']:g} steps{factor}"
