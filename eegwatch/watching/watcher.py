"""The watcher of one training loop: it reads what each step did and writes it down, and it never changes or ends it.

Whatever raises inside switches the watcher off: its hooks are taken off, one warning says so, and a record of look
"off" stands in the log. What was declared (a clip, frozen parts, scheduled values) is held against what is read by
eegwatch.diagnosis.silent; the watcher itself passes no verdict.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eegwatch.hooks import unwrapped
from eegwatch.run.records import Watch
from eegwatch.watching.averages import Average, aliased
from eegwatch.watching.calls import Calls
from eegwatch.watching.evaluation import Evaluation
from eegwatch.watching.eye import NAMED, Eye, some
from eegwatch.watching.micro import Micros
from eegwatch.watching.order import Order
from eegwatch.watching.scheduled import Scheduled
from eegwatch.watching.state import state_of, weights_of
from eegwatch.watching.surroundings import Frozen, Modes, moving_norms, outside
from eegwatch.watching.tensors import named, torch_module

if TYPE_CHECKING:
    from eegwatch.runlog import RunLog

COST_EVERY = 50  # looks between two records of what they cost


@dataclass
class Declared:
    """What log.watch() was told beside models and optimizers."""

    accumulate: int = 0  # 0: not declared
    clip: float | None = None
    scaler: Any = None
    frozen: list[Any] = field(default_factory=list)
    scheduled: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    world: int = 1
    fresh_optimizer: bool = False


class Watcher:
    """Watches models and optimizers for one RunLog. `off`: it has switched itself off, or the run has ended."""

    def __init__(self, log: RunLog, put: Callable[[Watch], None], say: Callable[[str], None]) -> None:
        self.log, self._put, self._say = log, put, say
        self.off = False
        self.models: list[Any] = []
        self.eyes: list[Eye] = []
        self.orders: list[Order] = []
        self.names: dict[int, str] = {}
        self.shared: set[int] = set()  # ids of tensors that several watched optimizers hold
        self.declared = Declared()
        self.scheduled = Scheduled({}, None)
        self.frozen: Frozen | None = None
        self.modes = Modes([])
        self.calls = Calls()
        self.micros = Micros()
        self.averages: list[Average] = []
        self._resumed = log.step_done > 0
        self._begun = False

    @property
    def accumulate(self) -> int:
        """Micro-batches of a step, where they were declared; else 0."""
        return self.declared.accumulate

    # ---- what is watched ----

    def watch(self, models: Sequence[Any], optimizers: Sequence[Any], loaders: Sequence[Any], said: Declared) -> None:
        """Begin to watch these too. Raises TypeError for what is no torch model or optimizer."""
        for model in models:
            if not isinstance(model, torch_module().nn.Module):
                raise TypeError(f"{type(model).__name__} is no torch module")
        self.models += [model for model in models if all(model is not known for known in self.models)]
        self.names = named(self.models)
        self.modes = Modes(self.models)
        self.declared = said
        self.scheduled = Scheduled(said.scheduled, self.log.steps_per_epoch)
        self.frozen = Frozen(said.frozen, self.models) if said.frozen else self.frozen
        for optimizer in optimizers:
            if all(eye.hooks.optimizer is not unwrapped(optimizer) for eye in self.eyes):
                self.eyes.append(Eye(self, optimizer, len(self.eyes), self._hooks_on(optimizer)))
        self._find_shared()
        for loader in loaders:
            self._watch_loader(loader)
        self._emit_attached()

    def _hooks_on(self, optimizer: Any) -> Any:
        """The hooks of the log's own follower, if they are on this optimizer."""
        follower = self.log.follower
        hooks = follower.hooks if follower is not None else None
        return hooks if hooks is not None and hooks.optimizer is unwrapped(optimizer) else None

    def _find_shared(self) -> None:
        seen: set[int] = set()
        self.shared.clear()
        for eye in self.eyes:
            held = {id(p) for group in eye.hooks.optimizer.param_groups for p in group["params"]}
            self.shared |= seen & held
            seen |= held

    def _watch_loader(self, loader: Any) -> None:
        if any(getattr(getattr(loader, "batch_sampler", None), "sampler", None) is o.sampler for o in self.orders):
            return
        try:
            number = len(self.orders)
            self.orders.append(Order(loader, number, lambda values: self.emit("order", values), self.guarded))
        except TypeError as error:
            self.emit("order", {"loader": len(self.orders), "unread": str(error)})

    def _emit_attached(self) -> None:
        said = self.declared
        values: dict[str, Any] = {
            "models": [type(model).__name__ for model in self.models],
            "optimizers": [{"name": eye.name, "tensors": len(eye.table.all), "formula": eye.kind} for eye in self.eyes],
            "loaders": len(self.orders),
        }
        names = ("accumulate", "clip", "fresh_optimizer", "rank")
        values["declared"] = {n: getattr(said, n) for n in names if getattr(said, n) not in (0, None, False)}
        if said.world > 1:
            values["declared"]["world"] = said.world
        if said.scheduled:
            values["declared"]["scheduled"] = sorted(said.scheduled)
        if said.scaler is not None:
            values["declared"]["scaler"] = True
        if self.frozen is not None:
            values["declared"]["frozen"] = some(list(self.frozen.tensors))
            if self.frozen.unknown:
                values["unknown"] = self.frozen.unknown
        self.emit("attached", values)

    # ---- what the log tells ----

    def next_step(self) -> int:
        """The number of the step that an optimizer is about to take."""
        follower = self.log.follower
        first = follower is not None and follower.logs_first
        return self.log.step_done if first else self.log.step_done + 1

    def logged(self, step: int, metrics: Mapping[str, Any] | None) -> None:
        """log.step() was called."""
        calls = self.calls
        taken = sum(eye.cadence.taken for eye in self.eyes)
        if taken == calls.taken and self.eyes:
            with self.guarded():
                values = calls.idle(step, self.eyes)
                if values is not None:
                    self.emit("calls", values, step=step)
        else:
            if calls.told:
                self.emit("calls", {"taken": taken, "calls": calls.calls + 1}, step=step)
            calls.moved(taken)
        calls.calls += 1
        for eye in self.eyes:
            eye.taken_at_call = eye.cadence.taken
        if metrics and self.scheduled.others:
            with self.guarded():
                off = self.scheduled.of_metrics(step, metrics)
                if off or step % COST_EVERY == 1:
                    self.emit("scheduled", {"off": off}, step=step)

    def evaluated(self) -> None:
        """An evaluation has been logged: the next steps are looked at."""
        with self.guarded():
            for eye in self.eyes:
                eye.cadence.soon()
                eye.arm()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation; whatever it raises goes on."""
        evaluation: Evaluation | None = None
        with self.guarded():
            evaluation = Evaluation(self.models)
        try:
            yield
        finally:
            with self.guarded():
                if evaluation is not None:
                    self.emit("evaluating", evaluation.finish())
            self.evaluated()

    def micro(self, loss: Any, items: float) -> None:
        """The loss of one micro-batch, before it is divided."""
        with self.guarded():
            if any(eye.armed for eye in self.eyes):
                self.micros.add(loss, items)

    def ema(self, model: Any, decay: Any) -> None:
        """`model` averages the watched weights."""
        with self.guarded():
            average = Average(model, decay, self.models, len(self.averages))
            self.averages.append(average)
            alias = aliased(average)
            if alias is not None:
                self.emit("ema", alias)

    def replica(self) -> None:
        """Note the sums of the trainable weights."""
        with self.guarded(), torch_module().no_grad():
            self.emit("replica", {"rank": self.declared.rank, **weights_of(self.models, trainable=True)})

    def checkpointed(self) -> None:
        """A checkpoint was written: what is in it is noted."""
        with self.guarded(), torch_module().no_grad():
            self._emit_state("checkpoint", self.log.step_done)

    def close(self) -> None:
        """Take everything off."""
        if self.off:
            return
        with self.guarded():
            for order in self.orders:
                order.close()
            self._emit_cost()
        self._release()

    # ---- looks ----

    def first_look(self, eye: Eye) -> None:
        """Called before each step that is looked at."""
        with torch_module().no_grad():
            if self.frozen is not None:
                self.frozen.begin()
            if not self._begun:
                self._begun = True
                if self._resumed:
                    self._emit_state("begin", eye.step - 1)

    def before_step(self, eye: Eye) -> None:
        """Called before every step: an average that waits is compared now, when it has had its update."""
        for average in self.averages:
            if average.waits and average.held_by(eye):
                with self.guarded():
                    values = average.compared()
                    if values is not None:
                        self.emit("ema", values, step=values["step"])

    def after_look(self, eye: Eye, step: int) -> None:
        """Called after a step that was looked at."""
        for average in self.averages:
            if average.held_by(eye):
                average.stepped(step)
        values = self.micros.take()
        if values is not None:
            scale = self.scale()
            self.emit("micro", values | ({"scale": scale} if scale is not None else {}), step=step)

    def scale(self) -> float | None:
        """The gradient scaler's scale, where one was declared."""
        scaler = self.declared.scaler
        return None if scaler is None or not scaler.is_enabled() else float(scaler.get_scale())

    def beside(self, eye: Eye, step: int) -> dict[str, Any]:
        """What a look at a step finds beside the optimizer's own work."""
        values: dict[str, Any] = {}
        optimizer = eye.hooks.optimizer
        with torch_module().no_grad():
            changed = self.frozen.changed() if self.frozen is not None else []
        if changed:
            values["frozen"] = some(changed)
        if self.scheduled.of_groups and not self._calls_apart(eye):
            off = self.scheduled.off(step, optimizer.param_groups)
            values["scheduled"] = {"off": off[:NAMED], "n": len(off)}
        lost = self.modes.lost()
        if lost:
            values["eval_mode"] = some(lost)
        moving = moving_norms(self.models)
        if moving:
            values["norms"] = some(moving)
        values |= self._unheld(eye)
        return values

    def _calls_apart(self, eye: Eye) -> bool:
        """Does this optimizer take several steps between two calls of log.step()? Then a step's number is not known."""
        return eye.taken - eye.taken_at_call > 1

    def _unheld(self, eye: Eye) -> dict[str, Any]:
        """Trainable tensors that no optimizer holds, and held ones that no model has."""
        values: dict[str, Any] = {}
        held = {id(h.parameter) for e in self.eyes for h in e.table.all}
        missing = outside(self.models, held)
        if missing:
            values["outside"] = some(missing)
        if self.models:
            own = {id(p): p for model in self.models for p in model.parameters()}
            strangers = [h for h in eye.table.all if id(h.parameter) not in own]
            without = strangers and all(h.parameter.grad is None for h in strangers)
            alive = sum(p.requires_grad and p.grad is not None and id(p) not in held for p in own.values())
            if without and alive:
                values["strangers"] = some([h.name for h in strangers]) | {"of": len(eye.table.all), "alive": alive}
        return values

    # ---- records ----

    def emit(self, look: str, values: dict[str, Any], *, step: int | None = None) -> None:
        """Write one record."""
        at = self.log.step_done if step is None else step
        self._put(Watch(time=time.time(), step=at, look=look, values=values))

    def _emit_state(self, when: str, step: int) -> None:
        values: dict[str, Any] = {"when": when, "weights": weights_of(self.models)}
        values["optimizers"] = [state_of(eye) for eye in self.eyes]
        if self.declared.fresh_optimizer:
            values["fresh_optimizer"] = True
        self.emit("state", values, step=step)

    def _emit_cost(self) -> None:
        if not self.eyes:
            return
        self.emit(
            "cost",
            {
                "looks": sum(eye.cadence.looks for eye in self.eyes),
                "steps": sum(eye.cadence.taken for eye in self.eyes),
                "spent_s": sum(eye.cadence.spent_s for eye in self.eyes),
                "interval": max(eye.cadence.interval for eye in self.eyes),
            },
        )

    # ---- whatever goes wrong ----

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever raises inside switches the watcher off; the training goes on as if it had never been there."""
        if self.off:
            yield
            return
        try:
            yield
        except Exception as error:
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
        parts: tuple[Eye | Order, ...] = (*self.eyes, *self.orders)
        for part in parts:
            with contextlib.suppress(Exception):  # each is taken off, whatever the others do
                part.close()
        self.eyes, self.orders = [], []
