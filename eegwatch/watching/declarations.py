"""What log.watch() was told, and what the watcher needs of the log that it writes for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eegwatch.watching.naming import first_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eegwatch.watching.optimizer_listener import OptimizerListener


@dataclass
class Declarations:
    """What log.watch() was told beside models and optimizers."""

    accumulate: int = 0  # 0: not declared
    clip: float | None = None
    scaler: Any = None
    frozen: list[Any] = field(default_factory=list)
    scheduled: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    world: int = 1
    fresh_optimizer: bool = False

    def with_earlier(self, before: Declarations) -> Declarations:
        """These declarations, and those of earlier calls of log.watch() that they leave open."""
        return replace(
            self,
            accumulate=self.accumulate or before.accumulate,
            clip=before.clip if self.clip is None else self.clip,
            scaler=before.scaler if self.scaler is None else self.scaler,
            frozen=[*before.frozen, *self.frozen],
            scheduled=before.scheduled | self.scheduled,
            fresh_optimizer=self.fresh_optimizer or before.fresh_optimizer,
        )

    def values(self) -> dict[str, Any]:
        """What of it stands in the record of look "attached"."""
        names = ("accumulate", "clip", "fresh_optimizer", "rank")
        values: dict[str, Any] = {n: getattr(self, n) for n in names if getattr(self, n) not in (0, None, False)}
        if self.world > 1:
            values["world"] = self.world
        if self.scheduled:
            values["scheduled"] = sorted(self.scheduled)
        if self.scaler is not None:
            values["scaler"] = True
        return values


def attached(
    models: Sequence[Any], listeners: Sequence[OptimizerListener], declarations: Declarations, frozen: list[str]
) -> dict[str, Any]:
    """What is watched, and what was declared of it. `frozen`: names of the tensors that were declared frozen."""
    declared = declarations.values() | ({"frozen": first_names(frozen)} if declarations.frozen else {})
    return {
        "models": [type(model).__name__ for model in models],
        "optimizers": [listener.attached() for listener in listeners],
        "declared": declared,
    }


class WatchedLog(Protocol):
    """The log that a watcher writes for: a RunLog, or the trainer's own."""

    @property
    def step_done(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def folder(self) -> Path: ...

    @property
    def steps_per_epoch(self) -> int | None: ...

    @property
    def follower(self) -> Any: ...

    @property
    def has_splits(self) -> bool: ...
