"""Stores a diagnosis: the detectors' state as bytes, so that a log is judged once and not at each opening.

The bytes are a pickle of a closed set of classes: the detectors', numpy's arrays, the containers of the standard
library. Reading refuses any other name, so that bytes which we did not write run nothing.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from eegwatch.diagnosis.engine import Diagnosis, worst
from eegwatch.diagnosis.events import Event, event_of, event_of_finding
from eegwatch.diagnosis.findings import ERROR, WARNING, Finding
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.run.history import Item
from eegwatch.run.records import Run

KEPT_EVENTS = 1000
ROOMS = ("eegwatch.diagnosis.", "eegwatch.schedule.", "eegwatch.run.records", "eegwatch.run.history")
OTHERS = {
    ("builtins", "set"), ("builtins", "frozenset"), ("builtins", "range"), ("builtins", "slice"),
    ("builtins", "complex"), ("collections", "deque"), ("collections", "defaultdict"),
    ("collections", "OrderedDict"), ("collections", "Counter"), ("decimal", "Decimal"), ("fractions", "Fraction"),
    ("msgspec._utils", "rebuild"), ("msgspec._core", "UnsetType"), ("msgspec._core", "UNSET"),
    ("numpy", "dtype"), ("numpy", "ndarray"),
    ("numpy._core.numeric", "_frombuffer"), ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"), ("numpy.core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "scalar"), ("numpy.core.multiarray", "_reconstruct"),
}  # fmt: skip
FUNCTIONS = {
    ("eegwatch.diagnosis.saved_state", "cell_of"),
    ("eegwatch.diagnosis.rate.found_law", "as_they_are"),
}


class Judge:
    """A run's diagnosis and what happened in it, from the items of its log alone: no clock, no settings of a person."""

    def __init__(self, diagnosis: Diagnosis | None = None) -> None:
        self.diagnosis = Diagnosis() if diagnosis is None else diagnosis
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._begun = 0  # the newest attempt that is among the events

    def feed(self, item: Item) -> tuple[list[Finding], list[Event]]:
        """(findings that were raised, changed or resolved; events of them and of the item)."""
        findings = self.diagnosis.feed(item)
        events = [event_of_finding(finding, item) for finding in findings]
        event = event_of(item)
        if isinstance(item, Run):
            if item.attempt == self._begun:
                event = None  # by a reader that knows more of the run by now
            self._begun = item.attempt
        if event is not None:
            events.append(event)
        self.events += events
        return findings, events

    def kept(self) -> tuple[str, bytes] | None:
        """(the verdict in a line, all that is known as bytes); None where a detector holds what cannot be kept."""
        data = encoded(self)
        return None if data is None else (self.says(), data)

    def says(self) -> str:
        """The verdict in a line: the worst finding, or that there is none."""
        findings = [finding for finding in self.diagnosis.findings if finding.bad]
        if not findings:
            return "✔ nothing wrong so far"
        sign = {ERROR: "✖", WARNING: "!"}.get(worst(findings), "i")
        return f"{sign} {findings[0].headline or findings[0].message}"


def judge_of(data: bytes | None) -> Judge | None:
    """A new judge, or the one stored as these bytes; None for invalid bytes."""
    return Judge() if data is None else decoded(data)


def cell_of(precision: Precision) -> Callable[..., Any]:
    """The bound method that the detectors hold of it."""
    return precision.cell


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.MethodType) and isinstance(obj.__self__, Precision) and obj.__name__ == "cell":
            return cell_of, (obj.__self__,)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in OTHERS | FUNCTIONS:
            return super().find_class(module, name)
        if module.startswith(ROOMS) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a diagnosis")


def encoded(judge: Judge) -> bytes | None:
    """The judge's state as bytes; None if a detector holds an object that cannot be stored."""
    out = io.BytesIO()
    try:
        _Pickler(out, protocol=5).dump(judge)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None
    return out.getvalue()


def decoded(data: bytes) -> Judge | None:
    """The judge again; None for bytes that `encoded` did not make."""
    try:
        judge = _Unpickler(io.BytesIO(data)).load()
    except Exception:  # whatever damaged bytes lead to: the log is judged anew
        return None
    return judge if isinstance(judge, Judge) else None
