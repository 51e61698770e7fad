"""The watcher of one training loop: it reads what each step did and writes it down, and it never changes or ends it.

Whatever raises inside switches the watcher off: its hooks are taken off, one warning says so, and a record of look
"off" stands in the log. What was declared (a clip, frozen parts, scheduled values) is held against what is read by
eegwatch.diagnosis.silent; the watcher itself passes no verdict.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eegwatch.hooks import unwrapped
from eegwatch.run.records import Watch
from eegwatch.watching.averages import Average, aliased
from eegwatch.watching.cadence import FIRST
from eegwatch.watching.calls import Calls
from eegwatch.watching.evaluation import Evaluation
from eegwatch.watching.eye import NAMED, Eye, some
from eegwatch.watching.micro import Micros
from eegwatch.watching.order import Order
from eegwatch.watching.ranks import Meeting, RankFile, store_of_job
from eegwatch.watching.scheduled import Scheduled
from eegwatch.watching.state import state_of, weights_of
from eegwatch.watching.surroundings import Frozen, Modes, Ties, moving_norms, outside
from eegwatch.watching.tensors import named, torch_module
from eegwatch.watching.workers import Workers

COST_EVERY = 50  # looks between two records of what they cost
COPIES_EVERY = 100  # steps between two sums of the weights of copies, the same in every rank


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


class Watched(Protocol):
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


class Watcher:
    """Watches models and optimizers for one RunLog. `off`: it has switched itself off, or the run has ended."""

    def __init__(self, log: Watched, put: Callable[[Watch], None], say: Callable[[str], None]) -> None:
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
        self.ties = Ties([])
        self.calls = Calls()
        self._rank_file: RankFile | None = None
        self._meeting: Meeting | None = None
        self.workers: list[Workers] = []
        self._replicas: tuple[int, int] = (-1, 0)  # (step, records of replicas at it)
        self.copies = False  # is a DistributedDataParallel among the models?
        self.micros = Micros()
        self.averages: list[Average] = []
        self._off: dict[int, bool] = {}  # optimizer -> was a scheduled value off when it was last compared
        self._resumed = log.step_done > 0
        self._begun = False
        self._numbered = 0  # optimizers that were watched so far
        self._base = log.step_done

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
        new = [model for model in models if all(model is not known for known in self.models)]
        self.models += new
        self.names = named(self.models)
        if new:
            self.modes, self.ties = Modes(self.models), Ties(self.models)
        self.declared = said
        self.copies = self.copies or any(_is_replica(model) for model in new)
        self._meet()
        self.scheduled = Scheduled(said.scheduled, self.log.steps_per_epoch)
        self.frozen = Frozen(said.frozen, self.models) if said.frozen else self.frozen
        for eye in [eye for eye in self.eyes if eye.hooks.optimizer is None]:
            eye.close()  # its optimizer is gone: another is watched in its place
            self.eyes.remove(eye)
        for optimizer in optimizers:
            if all(eye.hooks.optimizer is not unwrapped(optimizer) for eye in self.eyes):
                self.eyes.append(Eye(self, optimizer, self._numbered, self._hooks_on(optimizer)))
                self._numbered += 1
        self._find_shared()
        for loader in loaders:
            self._watch_loader(loader)
        self._emit_attached()

    def _meet(self) -> None:
        """Of several ranks, rank 0 says where its run lies, and the others write beside it."""
        store = store_of_job() if self.declared.world > 1 and self._meeting is None else None
        if store is None:
            return
        self._meeting = Meeting(store, self.log.name)
        if self.declared.rank:
            self._rank_file = RankFile(self._meeting, self.declared.rank)
        else:
            self._meeting.tell(self.log.folder, self.log.attempt)

    def _hooks_on(self, optimizer: Any) -> Any:
        """The hooks of the log's own follower, if they are on this optimizer."""
        follower = self.log.follower
        hooks = follower.hooks if follower is not None else None
        return hooks if hooks is not None and hooks.optimizer is unwrapped(optimizer) else None

    def _find_shared(self) -> None:
        seen: set[int] = set()
        self.shared.clear()
        for eye in self.eyes:
            optimizer = eye.hooks.optimizer
            groups = [] if optimizer is None else optimizer.param_groups
            held = {id(p) for group in groups for p in group["params"]}
            self.shared |= seen & held
            seen |= held

    def _watch_loader(self, loader: Any) -> None:
        if any(getattr(getattr(loader, "batch_sampler", None), "sampler", None) is o.sampler for o in self.orders):
            return
        if getattr(loader, "num_workers", 0) and hasattr(loader, "worker_init_fn") and loader.collate_fn is not None:
            path = Path(tempfile.mkdtemp(prefix="eegwatch-")) / "workers"
            at = len(self.workers)
            self.workers.append(Workers(loader, at, path, lambda values: self.emit("workers", values)))
        try:
            number = len(self.orders)
            self.orders.append(Order(loader, number, self._tell_order, self.guarded))
        except TypeError as error:
            self.emit("order", {"loader": len(self.orders), "unread": str(error)})

    def _tell_order(self, values: dict[str, Any]) -> None:
        if self.declared.world < 2:
            values.pop("some", None)
        self.emit("order", values, step=values.pop("step", None))

    def _emit_attached(self) -> None:
        said = self.declared
        values: dict[str, Any] = {
            "models": [type(model).__name__ for model in self.models],
            "optimizers": [
                {"opt": eye.number, "name": eye.name, "tensors": len(eye.table.all), "formula": eye.kind}
                for eye in self.eyes
            ],
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
            self._emit_replica(self.log.step_done, "asked")

    def _emit_replica(self, step: int, why: str) -> None:
        models = self.models if why == "asked" else [model for model in self.models if _is_replica(model)]
        nth = self._replicas[1] + 1 if self._replicas[0] == step else 1
        self._replicas = step, nth
        self.emit("replica", {"nth": f"{why} {nth}", **weights_of(models, trainable=True)}, step=step)

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
            for loader in self.workers:
                loader.close()
            self._emit_cost()
            if self._rank_file is not None:
                self._rank_file.close()
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
        if self.scheduled.of_groups and not self._calls_apart(eye):
            with self.guarded():
                self._compare_scheduled(eye)
        for average in self.averages:
            if average.waits and average.held_by(eye):
                with self.guarded():
                    values = average.compared()
                    if values is not None:
                        self.emit("ema", values, step=values["step"])

    def _compare_scheduled(self, eye: Eye) -> None:
        """Hold what the groups are set to against their schedules; written at looks, and when it changes."""
        step = self.next_step()
        off = self.scheduled.off(step, eye.hooks.optimizer.param_groups)
        if bool(off) != self._off.get(eye.number) or eye.armed:
            self._off[eye.number] = bool(off)
            self.emit("scheduled", {"opt": eye.number, "off": off[:NAMED], "n": len(off)}, step=step)

    def after_step(self, eye: Eye) -> None:
        """Called after every step of a job of copies: at the same steps in each rank their sums are noted."""
        if eye.number == 0 and (eye.taken <= FIRST or eye.taken % COPIES_EVERY == 0):
            with self.guarded(), torch_module().no_grad():
                self._emit_replica(eye.taken + self._base, "step")

    def after_look(self, eye: Eye, step: int) -> None:
        """Called after a step that was looked at."""
        for loader in self.workers:
            loader.read()
        if self.declared.world > 1 and eye.taken == 1:
            for order in self.orders:
                order.so_far(step)
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
        with torch_module().no_grad():
            changed = self.frozen.changed() if self.frozen is not None else []
        if changed:
            values["frozen"] = some(changed)
        if self.ties.pairs:
            values["ties"] = len(self.ties.pairs)
            untied = self.ties.lost()
            if untied:
                values["untied"] = some(untied)
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
        record = Watch(time=time.time(), step=at, look=look, values=values)
        if self._rank_file is not None:
            self._rank_file.put(record)
        else:
            self._put(record)

    def _emit_state(self, when: str, step: int) -> None:
        values: dict[str, Any] = {"when": when, "weights": weights_of(self.models)}
        values["optimizers"] = [state_of(eye) for eye in self.eyes if eye.hooks.optimizer is not None]
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
        parts: tuple[Eye | Order | Workers, ...] = (*self.eyes, *self.orders, *self.workers)
        for part in parts:
            with contextlib.suppress(Exception):  # each is taken off, whatever the others do
                part.close()
        self.eyes, self.orders, self.workers = [], [], []


def _is_replica(model: Any) -> bool:
    """Is this one of torch's copies that average their gradients at every step?"""
    ddp = torch_module().nn.parallel.DistributedDataParallel
    hooks = repr(getattr(model, "_comm_hooks", [])).lower()  # local SGD averages the weights now and then
    return isinstance(model, ddp) and "local" not in hooks
