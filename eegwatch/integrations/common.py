"""Shared by the callbacks: a failing callback is switched off and reports it once; names of evaluations."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, ParamSpec

from eegwatch.runlog import RunLog

Given = ParamSpec("Given")


class SafeCallback:
    """A callback that never ends the training that it logs. `log_` is its run log, once training has begun."""

    log_: RunLog | None = None
    off = False

    def give_up(self, error: BaseException) -> None:
        """Switch the callback off; the training goes on without a log."""
        self.off = True
        try:
            if self.log_ is not None:
                self.log_.end("failed", f"the callback failed: {type(error).__name__}: {error}")
        except Exception as again:  # nothing is left to be done but to say so
            error = again
        self.log_ = None
        words = f"{type(error).__name__}: {error}"
        warnings.warn(f"eegwatch: the callback failed and is switched off ({words}); training goes on", stacklevel=3)


class EvaluationHooks:
    """Watches a framework's evaluation of the model, from its first batch to its last.

    Not around it: averaged weights are put in before the first batch and taken out after the last, by other callbacks.
    An evaluation of unknown length is not looked at.
    """

    def __init__(self) -> None:
        self._open: ExitStack | None = None

    def first_batch(self, log: RunLog | None) -> None:
        """The first batch is about to be read, or has been."""
        self.last_batch()  # one that ended early
        if log is not None:
            self._open = ExitStack()
            self._open.enter_context(log.evaluating())

    def last_batch(self) -> None:
        """The last batch was read: what the evaluation did is written."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()


def never_raises(hook: Callable[Given, None]) -> Callable[Given, None]:
    """A method of a Quiet callback whose errors do not reach the trainer."""

    @functools.wraps(hook)
    def guarded(*given: Given.args, **named: Given.kwargs) -> None:
        callback: Any = given[0]
        if callback.off:
            return
        try:
            hook(*given, **named)
        except Exception as error:
            callback.give_up(error)

    return guarded


def evaluation(metrics: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Metrics of an evaluation as RunLog.eval takes them: every scalar under its own name, and loss, auroc and
    balanced_accuracy under those names where the framework's differ by a prefix alone."""
    named: dict[str, Any] = {}
    for key, value in metrics.items():
        number = scalar(value)
        if number is None:
            continue
        bare = next((key[len(p) :] for p in prefixes if key.lower().startswith(p)), key)
        field = bare.strip("_/").lower()
        named[field if field in ("loss", "auroc", "balanced_accuracy") and field not in named else key] = number
    return named


def scalar(value: Any) -> float | None:
    """A number, or a tensor that holds one; None for anything else."""
    try:
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if not isinstance(value, bool) and not isinstance(value, str) else None


def whole(value: Any) -> int | None:
    """A count as an int; None where it is unknown (frameworks write infinity or -1)."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
