"""What a script declares to the watcher: the methods of RunLog that begin with `log.watch(model, optimizer)`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eegwatch.run.records import encode
from eegwatch.schedule import ScheduleError

if TYPE_CHECKING:
    from eegwatch.run.records import Run, Watch
    from eegwatch.steering.ranks import Job
    from eegwatch.watching.splits import Splits
    from eegwatch.watching.watcher import Watcher


class WatchMethods:
    """The part of a RunLog that watches the training loop. None of its methods raises into the training."""

    step_done: int
    follower: Any
    _run: Run
    _job: Job
    watcher: Watcher | None = None
    _splits: Splits | None = None

    def watch(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        loader: Any = None,
        accumulate: int | None = None,
        clip: float | None = None,
        scaler: Any = None,
        frozen: Any = None,
        scheduled: Mapping[str, Any] | None = None,
        rank: int | None = None,
        world: int | None = None,
        fresh_optimizer: bool = False,
    ) -> None:
        """Look at what the training steps do: log.watch(model, optimizer). Everything else is optional.

        `model`, `optimizer`, `loader`: one or a list; without `optimizer`, the one whose rates are logged. What is
        declared is held against what is seen: `accumulate` micro-batches a step, `clip` the largest gradient norm,
        `scaler` the gradient scaler, `frozen` modules, parameters or names that never change, `scheduled` values of the
        parameter groups with a schedule or a function of (step from 1, group number) each; `fresh_optimizer`: a resume
        begins with an empty optimizer on purpose. `rank`, `world`: of the processes that train copies of this model.
        The training stays the same bit by bit. Call it once the model is wrapped and on its device, before the first
        step; a second call adds to what is watched, and what it declares of steps is so of its optimizers alone.
        docs/silent_errors.md has the rules.
        """
        from eegwatch.watching.declarations import Declarations
        from eegwatch.watching.watcher import Watcher

        optimizers = _several(optimizer)
        if not optimizers and self.follower is not None and self.follower.hooks is not None:
            optimizers = [one for one in [self.follower.hooks.optimizer] if one is not None]
        before = Declarations() if self.watcher is None else self.watcher.declared
        own = self._job.rank if self.watcher is None else before.rank
        several = max(self._job.world, self._run.world_size) if self.watcher is None else before.world
        declarations = Declarations(
            accumulate or (self._run.accumulate if self._run.accumulate > 1 else 0),
            clip,
            scaler,
            _several(frozen),
            dict(scheduled or {}),
            own if rank is None else rank,
            several if world is None else world,
            fresh_optimizer,
        )
        watcher = self.watcher
        if watcher is None:
            watcher = Watcher(self, self._put_watched, self._say)  # type: ignore[arg-type]  # RunLog has the rest
        try:
            watcher.watch(_several(model), optimizers, _several(loader), declarations)
            self.watcher = watcher
        except (TypeError, ScheduleError) as error:
            self._say(f"log.watch: {error}; nothing is watched")
            watcher.close()
        except Exception as error:  # whatever it is, it must not end the training
            watcher.give_up(error)
            self.watcher = watcher  # which is off: it has been said why

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """`with log.evaluating():` around an evaluation that should change neither the weights nor the batch norms."""
        watcher = self.watcher
        if self._splits is not None and self._splits.waiting:
            self._tell_splits()
        if watcher is None or watcher.off:
            yield
            return
        with watcher.evaluating():
            yield

    def micro(self, loss: Any, items: float) -> Any:
        """The loss of one micro-batch, the mean over `items` of them; returns it. Call it before the division."""
        if self.watcher is not None:
            self.watcher.micro(loss, items)
        return loss

    def ema(self, model: Any, decay: Any = None, *, of: Any = None) -> None:
        """`model` is an average of the watched weights: a step later it is decay·itself + (1 − decay)·the weights.

        `model`: a module, a dict or a list of tensors, or an object that keeps one of them. `of`: the model that it
        averages, where several watched ones have tensors of the same names and shapes.
        """
        if self.watcher is None:
            self._say("log.ema: call log.watch(model, optimizer) first; the average is not watched")
            return
        self.watcher.ema(model, decay, _several(of))

    def split(self, name: str, ids: Iterable[Any]) -> None:
        """The subjects, recordings or windows of a split; no other split may hold one of them.

        `ids`: anything that can be compared; windows as (recording, start, stop) must not overlap in time either. The
        splits are compared at the next step or evaluation, so that a fold may declare its own one after the other.
        """
        from eegwatch.watching.splits import Splits

        try:
            self._splits = self._splits or Splits()
            self._splits.declare(str(name), ids)
        except Exception as error:  # ids of any kind
            self._say(f"log.split: {name}: {type(error).__name__}: {error}; the split is not compared")

    def replica(self) -> None:
        """Note the sums of the trainable weights now: the same in every process that trains a copy."""
        if self.watcher is not None:
            self.watcher.replica()

    @property
    def has_splits(self) -> bool:
        """Was a split declared?"""
        return self._splits is not None

    def _tell_splits(self) -> None:
        """Write what was declared of splits since it was last written."""
        import time

        from eegwatch.run.records import Watch

        assert self._splits is not None
        try:
            declared = self._splits.take()
        except Exception as error:  # ids of any kind
            self._splits.waiting.clear()
            self._say(f"log.split: {type(error).__name__}: {error}; the splits are not compared")
            return
        for values in declared:
            if self.watcher is not None and not self.watcher.off:  # a rank above 0 writes beside the run of rank 0
                self.watcher.emit_split(values)
            else:
                self._put(encode(Watch(time=time.time(), step=self.step_done, look="split", values=values)))

    def _close_watcher(self, *, completed: bool) -> None:
        """The run ends: what waits is written, and everything is taken off."""
        if self._splits is not None and self._splits.waiting:
            self._tell_splits()
        if self.watcher is not None:
            if self._splits is not None:
                self.watcher.leave(self._splits)
            self.watcher.close(completed=completed)

    def _put_watched(self, record: Watch) -> None:
        self._put(encode(record))

    # ---- what the log that this is part of has ----

    def _put(self, line: bytes) -> None:
        raise NotImplementedError

    def _say(self, words: str) -> None:
        raise NotImplementedError


def _several(given: Any) -> list[Any]:
    """One or a list of them, as a list."""
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Sequence | set | frozenset) or hasattr(given, "parameters"):
        return [given]
    return [one for one in given if one is not None]
