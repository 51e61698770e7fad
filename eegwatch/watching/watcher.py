"""The watcher of one training loop: it reads what each step did and writes it down, and it never changes or ends it.

Whatever raises inside switches the watcher off: its hooks are taken off, one warning says so, and a record of look
"off" stands in the log. What was declared (a clip, frozen parts, scheduled values) is held against what is read by
eegwatch.diagnosis.silent; the watcher itself passes no verdict.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegwatch.optimizer_hooks import unwrapped
from eegwatch.run.records import Watch
from eegwatch.watching.cadence import FIRST
from eegwatch.watching.checkpoint_state import weights_of, whole_state
from eegwatch.watching.cost import Cost
from eegwatch.watching.declarations import Declarations, WatchedLog, attached
from eegwatch.watching.ema import UNKNOWN, WeightAverage
from eegwatch.watching.ema_statistics import AverageStatistics
from eegwatch.watching.evaluation import Evaluation
from eegwatch.watching.folds import Marks, Trained, carried, goes_on, leave, leave_optimizers
from eegwatch.watching.forwards import Forwards
from eegwatch.watching.gradients import Turns
from eegwatch.watching.loaders import Loaders
from eegwatch.watching.loads import Loads
from eegwatch.watching.losses import Losses
from eegwatch.watching.masters import Masters
from eegwatch.watching.micro_batches import MicroBatches
from eegwatch.watching.model_state import Frozen, Surroundings, has_recurrence
from eegwatch.watching.naming import NAMED
from eegwatch.watching.optimizer_listener import OptimizerListener
from eegwatch.watching.record_output import RecordOutput
from eegwatch.watching.replicas import BatchRows, ReplicaSums, is_copy
from eegwatch.watching.scheduled_values import Scheduled
from eegwatch.watching.splits import Splits, trained_before
from eegwatch.watching.step_calls import StepCalls
from eegwatch.watching.step_draws import STEPS, StepDraws
from eegwatch.watching.tensors import named, torch_module

SCHEDULED_EVERY = 50  # steps between two records of a value that only log.step(metrics=…) tells


class Watcher:
    """Watches models and optimizers for one RunLog. `off`: it has switched itself off, or the run has ended."""

    def __init__(self, log: WatchedLog, put: Callable[[Watch], None], say: Callable[[str], None]) -> None:
        self.log, self._say = log, say
        self._written = RecordOutput(log, put)
        self.off = False
        self.models: list[Any] = []
        self.listeners: list[OptimizerListener] = []
        self.loaders = Loaders(self)
        self.names: dict[int, str] = {}
        self.declared = Declarations()
        self.around = Surroundings()
        self.forwards = Forwards(self.guarded)
        self._draws = StepDraws(self.guarded)
        if log.step_done:
            self._draws.begins = self._begins_pass
        self._at_pass: dict[str, Any] | None = None  # the weights at the first forward pass of a resume
        self._masters: dict[int, Masters] = {}  # of each optimizer
        self.loads = Loads(self.guarded, self._tell_load)
        self.turns = Turns()  # of several optimizers
        self.calls = StepCalls()
        self.losses = Losses()
        self._rows: BatchRows | None = None  # that the copies of a job of several processes train on
        self.copied = False  # is a DistributedDataParallel among the models?
        self.cost = Cost()
        self._copies = ReplicaSums(log.step_done)
        self.micros = MicroBatches()
        self.averages: list[WeightAverage] = []
        self._statistics: list[AverageStatistics] = []  # of the averages
        self._off: dict[int, bool] = {}  # optimizer -> was a scheduled value off when it was last compared
        self._resumed = log.step_done > 0
        self._begun, self._base = False, log.step_done
        self._numbered = 0  # optimizers that were watched so far
        self._evaluations: list[Evaluation] = []  # over, and not yet compared with what the next step begins with
        self._marks: Marks | None = None
        self._earlier: list[Trained] = []  # what runs before in this process have trained the models on

    # ---- what is watched ----

    def watch(
        self, models: Sequence[Any], optimizers: Sequence[Any], loaders: Sequence[Any], declarations: Declarations
    ) -> None:
        """Begin to watch these too. Raises TypeError for what is no torch model or optimizer."""
        for model in models:
            if not isinstance(model, torch_module().nn.Module):
                raise TypeError(f"{type(model).__name__} is no torch module")
        new = [model for model in models if all(model is not known for known in self.models)]
        self.models += new
        self.names = named(self.models)
        if new:
            self.around.of(self.models)
            self.forwards.of(self.models)
            self.loads.of(new)
            self._draws.of(new)
        own, declarations = declarations, declarations.with_earlier(self.declared)
        self.declared = declarations
        self.copied = self.copied or any(is_copy(model) for model in new)
        self._written.meet(declarations.rank, declarations.world)
        if declarations.world > 1 and new and self._rows is None:
            self._rows = BatchRows(new)
        scheduled = Scheduled(own.scheduled, self.log.steps_per_epoch)  # raises before anything is watched
        if own.frozen:
            self.around.frozen = Frozen(declarations.frozen, self.models)
        earlier = list(self.listeners)
        for listener in [listener for listener in self.listeners if listener.hooks.optimizer is None]:
            listener.close()  # its optimizer is gone: another is watched in its place
            self.listeners.remove(listener)
        for optimizer in optimizers:
            if all(listener.hooks.optimizer is not unwrapped(optimizer) for listener in self.listeners):
                self.listeners.append(OptimizerListener(self, optimizer, self._numbered, self._hooks_on(optimizer)))
                self._numbered += 1
                if not declarations.fresh_optimizer:
                    self.listeners[-1].follow(earlier)
        given = [unwrapped(optimizer) for optimizer in optimizers]
        for listener in self.listeners:
            if not given or any(listener.hooks.optimizer is one for one in given):
                listener.declare(own, scheduled)
            listener.cadence.parts = len(self.listeners)
            if len(self.listeners) > 1:
                listener.gradients.of_several(self.turns)
                self.losses.roots.follows = True
        scalers = {
            id(listener.declared.scaler): listener
            for listener in self.listeners
            if listener.declared.scaler is not None
        }
        if len(scalers) == 1:
            self.losses.roots.scale = next(iter(scalers.values())).scale
        self.around.find_shared(self.listeners)
        for loader in loaders:
            self.loaders.watch(loader)
        self._emit_attached()

    def _hooks_on(self, optimizer: Any) -> Any:
        """The hooks of the log's own follower, if they are on this optimizer."""
        follower = self.log.follower
        hooks = follower.hooks if follower is not None else None
        return hooks if hooks is not None and hooks.optimizer is unwrapped(optimizer) else None

    def _begins_pass(self) -> None:
        """The first forward pass of a resume: what comes before its step may add to the weights and take away again."""
        with torch_module().no_grad():
            self._at_pass = weights_of(self.models)

    def _tell_load(self, values: dict[str, Any]) -> None:
        if "unfit" in values or any(listener.taken for listener in self.listeners):
            self.emit("load", values)

    def _emit_attached(self) -> None:
        frozen = self.around.frozen
        values = attached(self.models, self.listeners, self.declared, [] if frozen is None else list(frozen.tensors))
        values |= {"loaders": len(self.loaders.orders)} | ({"copies": True} if self.copied else {})
        if has_recurrence(self.models):
            values["recurrent"] = True
        if frozen is not None and frozen.unknown:
            values["unknown"] = frozen.unknown
        self.emit("attached", values)

    def follows_another(self, listener: OptimizerListener) -> bool:
        """Are the logged rates those of an optimizer of the same tensors that has taken no step?"""
        follower = self.log.follower
        hooks = None if follower is None else follower.hooks
        other = None if hooks is None else hooks.optimizer
        if other is None or follower.steps_taken or any(one.hooks.optimizer is other for one in self.listeners):
            return False
        return {id(p) for group in other.param_groups for p in group["params"]} == listener.table.ids

    # ---- what the log tells ----

    def next_step(self) -> int:
        """The number of the step that an optimizer is about to take."""
        follower = self.log.follower
        return self.log.step_done + (follower is None or not follower.logs_first)

    def logged(
        self, step: int, metrics: Mapping[str, Any] | None, loss: Any = None, value: float | None = None
    ) -> None:
        """log.step() was called, with this loss; `value`: as a number, where it is known."""
        try:  # as guarded(), which takes 2 µs more: this runs at every step
            if not self._begun and self._resumed:  # the first step was skipped: nothing has changed but the scale
                self._begun = True
                with torch_module().no_grad():
                    self._emit_state("begin", self._base, skipped=True)
            for values in self.calls.counted(self.listeners):
                self.emit("calls", values, step=step)
            if self.losses.waiting:
                self._compare_losses(loss, value)
            if self._marks is not None:
                self._marks.stepped()
        except Exception as error:
            self.give_up(error)
        for listener in self.listeners:
            listener.taken_at_call = listener.cadence.taken
        for scheduled in (
            {id(listener.scheduled): listener.scheduled for listener in self.listeners}.values() if metrics else ()
        ):
            if scheduled.others:
                with self.guarded():
                    off = scheduled.of_metrics(step, metrics or {})
                    if off or step % SCHEDULED_EVERY == 1:
                        self.emit("scheduled", {"off": off}, step=step)

    def skipped(self) -> int:
        """Logged steps so far that the optimizer has not taken, where a declared gradient scaler may skip them."""
        if self.off or len(self.listeners) != 1:
            return 0
        listener, follower = self.listeners[0], self.log.follower
        scaler = listener.declared.scaler
        if scaler is None or not scaler.is_enabled():
            return 0
        return max(0, self.calls.calls - listener.taken - (follower is not None and follower.logs_first))

    def _compare_losses(self, loss: Any, value: float | None) -> None:
        world = self.declared.world if self.copied else 1
        with torch_module().no_grad():
            for at, values in self.losses.logged(loss, value, world=world, by_micro=self.micros.used):
                self.emit("loss", values, step=at)

    def evaluated(self) -> None:
        """An evaluation has been logged: the next steps are looked at."""
        if self.off:
            return
        with self.guarded():
            for listener in self.listeners:
                listener.look_soon()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation; whatever it raises goes on."""
        if self.off:
            yield
            return
        evaluation: Evaluation | None = None
        with self._counted():
            evaluation = Evaluation(self.models, self.log.step_done, self.guarded)
            self.around.evaluation_begins()
            for listener in self.listeners:
                listener.evaluation_begins()
        try:
            yield
        finally:
            with self._counted():
                if evaluation is not None:
                    self.emit("evaluating", evaluation.finish(), step=evaluation.step)
                    self._evaluations.append(evaluation)
            self.evaluated()

    def micro(self, loss: Any, items: float) -> None:
        """The loss of one micro-batch, before it is divided."""
        with self.guarded():
            if any(listener.armed for listener in self.listeners):
                self.micros.add(loss, items)

    def ema(self, model: Any, decay: Any, of: Sequence[Any]) -> None:
        """`model` averages the watched weights, or those of the models `of`."""
        if self.off:
            return
        with self.guarded():
            average = WeightAverage(model, decay, self.models, len(self.averages), of)
            self.averages.append(average)
            if average.unpaired:
                self._say(UNKNOWN.format(type(model).__name__))
            self._statistics.append(
                AverageStatistics(model, of or self.models, average.number, self.guarded, self.emit)
            )
            if average.aliased:
                self.emit("ema", average.alias())

    def emit_split(self, values: dict[str, Any]) -> None:
        """A split was declared: it is held against what earlier runs have trained this model on."""
        with self.guarded():
            self.emit("split", values | trained_before(values, self._earlier))

    def leave(self, splits: Splits) -> None:
        """The run ends, which has these splits: a later run of the same model is to know what it was trained on."""
        if not self.off and self._marks is not None:
            with self._counted():
                if self._marks.stand(self.models):
                    run = self.log.name if self.declared.rank else self.log.folder.name
                    leave(self.models, run, splits.trained(), self._earlier)

    def replica(self) -> None:
        """Note the sums of the weights."""
        if self.off:
            return
        with self._counted():
            values, step = self._copies.asked(self.models, self.log.step_done)
            self.emit("replica", values, step=step)

    def checkpointed(self) -> None:
        """A checkpoint was written: what is in it is noted."""
        if self.off:
            return
        with self._counted():
            self._emit_state("checkpoint", self.log.step_done)
            self.loaders.note("checkpoint", self.log.step_done)

    def close(self, *, completed: bool = False) -> None:
        """Take everything off. `completed`: the training has taken all of its steps."""
        if self.off:
            return
        with self.guarded():
            # of several optimizers, the pass of one may leave gradients in another's tensors
            for listener in self.listeners if completed and len(self.listeners) == 1 else ():
                left = listener.unfinished()
                if left is not None:
                    self.emit("end", left, step=self.log.step_done)
            self.loaders.end(self.log.step_done)
            if any(listener.taken for listener in self.listeners):
                with torch_module().no_grad():
                    run = self.log.name if self.declared.rank else self.log.folder.name
                    leave_optimizers([listener.hooks.optimizer for listener in self.listeners], self.models, run)
            self._emit_cost()
            self._written.close()
        self._release()

    # ---- looks ----

    def first_look(self, listener: OptimizerListener) -> None:
        """Called before each step that is looked at."""
        self.around.begin()
        self._at_first_steps(listener)
        for evaluation in self._evaluations:
            values = evaluation.before_step()
            if values is not None:
                self.emit("evaluating", values, step=evaluation.step)
        self._evaluations.clear()
        if not self._begun:
            self._begun = True
            if self.log.has_splits:
                self._earlier, self._marks = goes_on(self.models), Marks(self.models)
            passes = max(listener.gradients.passes, self.forwards.passes // max(len(self.models), 1))
            self.loaders.first_step(listener.step - 1, resumed=self._resumed, trained=passes)
            if self._resumed:
                self._emit_state("begin", listener.step - 1)
            else:
                self._tell_carried()

    def _tell_carried(self) -> None:
        """A run begins anew: do its optimizers hold the state of an earlier run, of other weights?"""
        for listener in self.listeners:
            run = carried(listener.hooks.optimizer, self.models) if listener.hooks.optimizer is not None else None
            if run is not None and not listener.declared.fresh_optimizer:
                self.emit("carried", {"opt": listener.number, "run": run}, step=self.log.step_done)

    def _at_first_steps(self, listener: OptimizerListener) -> None:
        """Called before each of the first steps that is looked at."""
        drawn = self._draws.drawn() if self.copied and listener.taken == 1 else None
        if drawn is not None:
            self.emit("rank_draws", dict(drawn), step=listener.step)
        if self._draws.before_step():
            self.emit("draws", {"steps": STEPS}, step=listener.step)
        masters = self._masters.setdefault(listener.number, Masters())
        values = masters.compared([held.parameter for held in listener.table.all], self.models, listener.step)
        if values is not None:
            self.emit("masters", values, step=values.pop("step"))

    def before_step(self, listener: OptimizerListener, *, whole: bool) -> None:
        """Called before every step: an average that waits is compared now, when it has had its update.

        `whole`: the scheduled values are to be compared too.
        """
        if whole and listener.scheduled.of_groups and listener.unlogged < 2:
            with self.guarded():
                self._compare_scheduled(listener)
        for average in self.averages:
            if average.waits and average.held_by(listener):
                with self.guarded():
                    values = average.compared(self.calls.calls, listener.scale())
                    if values is not None:
                        self.emit("ema", values, step=values["step"])

    def _compare_scheduled(self, listener: OptimizerListener) -> None:
        """Hold what the groups are set to against their schedules; written at looks, and when it changes."""
        step = self.next_step()
        groups = listener.hooks.optimizer.param_groups
        off = listener.scheduled.off(step, groups)
        if bool(off) != self._off.get(listener.number) or listener.armed:
            self._off[listener.number] = bool(off)
            values: dict[str, Any] = {"opt": listener.number, "off": off[:NAMED], "n": len(off)}
            empty = listener.scheduled.empty(step, groups)
            beyond = listener.scheduled.beyond(step, groups) if listener.taken <= FIRST else None
            values |= {"beyond": beyond | {"have": len(groups)}} if beyond is not None else {}
            self.emit("scheduled", values | ({"empty": empty} if empty is not None else {}), step=step)

    def after_step(self, listener: OptimizerListener) -> None:
        """Called after every step of a job of copies: at the same steps in each rank their sums are noted."""
        if listener.number:
            return
        with self._counted():
            noted = self._copies.stepped(self.models, listener.taken)
            if noted is not None:
                self.emit("replica", noted[0], step=noted[1])

    def after_look(self, listener: OptimizerListener, step: int) -> None:
        """Called after a step that was looked at."""
        self.forwards.stepped()
        if listener.taken >= FIRST:
            self.forwards.close()
            self._draws.close()
        self.loaders.looked()
        if self.declared.world > 1 and listener.taken == 1:
            self.loaders.so_far(step, {"rows": self._rows.rows} if self._rows is not None and self._rows.rows else {})
        for average in self.averages:
            if average.held_by(listener):
                average.stepped(step, self.calls.calls, listener.scale())
        values = self.micros.take(listener.seen, several=len(self.listeners) > 1)
        if values is not None:
            scale = listener.scale()
            self.emit("micro", values | ({"scale": scale} if scale is not None else {}), step=step)

    def folder_of_rank_0(self) -> Path | None:
        """Where the run of rank 0 lies, on another rank once it is known."""
        return self._written.folder_of_rank_0()

    # ---- records ----

    def emit(self, look: str, values: dict[str, Any], *, step: int | None = None) -> None:
        """Write one record."""
        self._written.emit(look, values, step)

    def _emit_state(self, when: str, step: int, *, skipped: bool = False) -> None:
        values = whole_state(self.models, self.listeners, self.averages, self.declared, skipped=skipped)
        if when == "checkpoint" and self.next_step() > step and any(listener.unlogged for listener in self.listeners):
            values["ahead"] = True
        if when == "begin" and self._at_pass is not None:
            values["weights_at_pass"], self._at_pass = self._at_pass["crc"], None
        self.emit("state", {"when": when} | values, step=step)

    def account(self) -> None:
        """What watching costs is written now and then, with a look."""
        if self.cost.due(self.listeners):
            with self.guarded():
                self._emit_cost()

    def _emit_cost(self) -> None:
        if self.listeners:
            self.emit("cost", self.cost.values(self.listeners))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """What is done inside counts as the watcher's cost, and may fail as in guarded()."""
        began = time.perf_counter()
        with self.guarded(), torch_module().no_grad():
            yield
        self.cost.around_s += time.perf_counter() - began

    # ---- whatever goes wrong ----

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever raises inside switches the watcher off; the training goes on as if it had never been there."""
        try:
            yield
        except Exception as error:  # once it is off, it has been said
            self.give_up(error)

    def give_up(self, error: BaseException) -> None:
        """Switch off: take the hooks off, say so once."""
        if self.off:
            return
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        with contextlib.suppress(Exception):  # nothing is left to be done but to say so
            self.emit("off", {"why": words})
        self._release()
        self._say(f"the watcher failed and is switched off ({words}); training goes on")

    def _release(self) -> None:
        self.off = True
        rows = [self._rows] if self._rows is not None else []
        parts: tuple[Any, ...] = (
            self.forwards,
            self.loads,
            self._draws,
            *self._statistics,
            *rows,
            *self.listeners,
            self.loaders,
        )
        for part in parts:
            with contextlib.suppress(Exception):  # each is taken off, whatever the others do
                part.close()
        self.listeners = []
        # whoever keeps the log keeps none of what was watched
        self._marks, self._earlier = None, []
        self.models, self.averages, self._evaluations, self._statistics = [], [], [], []
        self.around, self.calls, self.micros = Surroundings(), StepCalls(), MicroBatches()
        self.losses = Losses()
        self.forwards = Forwards(self.guarded)
        self.declared = Declarations()
