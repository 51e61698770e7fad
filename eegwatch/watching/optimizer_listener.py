"""The listener on one watched optimizer: counts its steps, and looks at those whose turn it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eegwatch.optimizer_hooks import StepHooks, unwrapped
from eegwatch.watching.cadence import FIRST, Cadence
from eegwatch.watching.declarations import Declarations
from eegwatch.watching.formulas.known import formula_of, is_torchs
from eegwatch.watching.gradients import ASKED, GradientReport, Gradients, sampled
from eegwatch.watching.naming import first_names
from eegwatch.watching.optimizer_tensors import OptimizerTensor, OptimizerTensors
from eegwatch.watching.scheduled_values import Scheduled
from eegwatch.watching.step_sample import StepSample
from eegwatch.watching.tensors import compiling, eagerly, torch_module
from eegwatch.watching.window import Window

if TYPE_CHECKING:
    from eegwatch.watching.watcher import Watcher

ADAPTERS = ("lora_", "ia3_", "vera_lambda", "oft_", "adapter", "prompt_encoder")  # in names of what is trained alone
REPLACES = 3  # steps of an optimizer in which the one before it takes none
RESTING = 3  # looks one after the other at which every rate is 0
SAME_LENGTH = 1e-3  # relative: two warm-ups of the same length
SETTLED = 8  # looks at which the tensors without a gradient are the same
SINGLE = 1e-6  # a type whose numbers are farther apart than this, relative, is no float32


class OptimizerListener:
    """Looks at the steps of one optimizer. `number`: which of the watched ones it is."""

    def __init__(self, watcher: Watcher, optimizer: Any, number: int, hooks: StepHooks | None) -> None:
        """`hooks`: a layer of hooks that is on this optimizer already. Raises TypeError for no torch optimizer."""
        self.watcher, self.number = watcher, number
        self.own_hooks = hooks is None
        self.hooks = StepHooks(optimizer) if hooks is None else hooks
        self.name = type(unwrapped(optimizer)).__name__
        self.formula = formula_of(unwrapped(optimizer))
        self.reads_grad = is_torchs(unwrapped(optimizer))  # its step is known to use .grad and nothing else
        self.cadence = Cadence(_clock_of(unwrapped(optimizer)))
        self.declared, self.scheduled = Declarations(), Scheduled({}, None)  # of this optimizer
        self.table, self.gradients = OptimizerTensors(), Gradients(number)
        self.step = 0  # that the look under way is at
        self.taken_at_call = 0  # steps when log.step() was last called
        self._armed: list[OptimizerTensor] | None = None
        self._between = False  # were hooks put on after a part of the passes of a step?
        self._look: StepSample | None = None
        self._sees = True
        self._again = False  # is the step after the one that is looked at to be looked at too?
        self.idle = True  # at the last look: a tensor without .grad is one that this optimizer does not move
        self._had: set[int] = set()  # ids of tensors that had a gradient at a look
        self._earlier: list[tuple[OptimizerListener, int]] = []  # with their steps when this one came
        self._passes: dict[int, tuple[int, int]] = {}  # before a step with a closure (Gradients.state)
        self.counts: dict[int, float] = {}  # ids of tensors -> steps that the optimizer has counted of them
        self._frozen: dict[int, int] = {}  # ids of tensors that were frozen at the first look -> sums of their bits
        self._before_look, self._after_look = eagerly(self._look_before), eagerly(self._look_after)
        self._next_look = eagerly(self._arm_guarded)
        self._before_evaluation: list[Any | None] | None = None  # elements of a few gradients
        self._of_evaluation = False  # did an evaluation make what lay there when the next look was armed?
        self._warm_ups: dict[int, float] = {}  # group -> steps of the warm-up within an optimizer of the script's own
        self._rates: dict[int, tuple[float, float]] = {}  # group -> its rate, and that of the step, when first known
        self._window = Window()
        self._by_hand = False  # has the script made a gradient of several passes?
        self._by_scaler = True  # has the declared scaler had to do with the step under way?
        self._never = self._same = 0  # tensors without a gradient so far, and looks since when they are as many
        self._resting_rates = 0  # looks at which every rate was 0
        self._spent = 0.0
        self.seen = GradientReport()  # what the backward passes before the last look's step have done
        self.gradients.roots = watcher.losses.roots
        self.hooks.listeners.append(self)
        self.arm()

    def attached(self) -> dict[str, Any]:
        """What is written of this optimizer when it is watched."""
        formula = self.formula.name if self.formula is not None else None
        return {"opt": self.number, "name": self.name, "tensors": len(self.table.all), "formula": formula}

    @property
    def taken(self) -> int:
        """Steps so far, since it is watched."""
        return self.cadence.taken

    @property
    def unlogged(self) -> int:
        """Steps since log.step() was last called; where they are several, the number of a step is not known."""
        return self.taken - self.taken_at_call

    @property
    def armed(self) -> bool:
        """Is the next step looked at?"""
        return self._armed is not None

    def declare(self, declarations: Declarations, scheduled: Scheduled) -> None:
        """What log.watch() was told with this optimizer; what an earlier call told of it goes on."""
        self.declared = declarations.with_earlier(self.declared)
        if scheduled.names:
            self.scheduled = scheduled

    def scale(self) -> float | None:
        """The scale of the gradient scaler that was declared with this optimizer."""
        scaler = self.declared.scaler
        return None if scaler is None or not scaler.is_enabled() else float(scaler.get_scale())

    def follow(self, earlier: Sequence[OptimizerListener]) -> None:
        """Optimizers watched before this one: another of its class and tensors that rests from now on was replaced."""
        alike = [old for old in earlier if (old.name, old.table.ids) == (self.name, self.table.ids)]
        self._earlier = [(old, old.taken) for old in alike]

    def arm(self, *, between: bool = False) -> None:
        """The next step is looked at: its tensors are chosen, and hooks are put on their gradients.

        `between`: backward passes have come since the last step.
        """
        optimizer = self.hooks.optimizer
        if optimizer is None:
            return
        began = self.cadence.clock()
        self.table.refresh(optimizer, self.watcher.names)
        self._armed = self.table.chosen(self.cadence.taken < FIRST)
        with torch_module().no_grad():
            self.gradients.arm(self._armed, self.watcher.around.shared)
        self._between = between
        if between:
            self.gradients.restart()
        self._spent = self.cadence.clock() - began

    def evaluation_begins(self) -> None:
        """Keep elements of a few gradients, as they are before an evaluation."""
        self._before_evaluation = self._few_gradients()

    def _few_gradients(self) -> list[Any | None]:
        with torch_module().no_grad():
            few = (sampled(held, held.parameter.grad) for held in self.table.readable[:ASKED])
            return [None if one is None else one.clone() for one in few]

    def _made_gradients(self) -> bool:
        """Did the evaluation that ends now make gradients, or add to them?"""
        before, self._before_evaluation = self._before_evaluation, None
        if before is None:
            return False
        torch = torch_module()
        return any(
            now is not None and bool((now != 0).any()) and (then is None or not torch.equal(now, then))
            for then, now in zip(before, self._few_gradients())
        )

    def look_soon(self) -> None:
        """The next step is looked at: an evaluation was made.

        Micro-batches may have come before it: what lies there is the last step's gradient only where that was looked
        at. Else the step after the next is looked at too, whose look knows what the one before it has left. Where the
        evaluation itself made gradients, what lies there now must not be part of the next step.
        """
        if self._made_gradients():
            if not self.armed:
                self.cadence.soon()
            self.arm()
            self._of_evaluation = self.armed
        elif not self.armed:
            self.cadence.soon()
            self.arm(between=True)
            self._again = self.armed

    def unfinished(self) -> dict[str, Any] | None:
        """The run ends: micro-batches of a step that was not taken, if their gradients still lie there.

        Where several optimizers are watched, a pass for another one's step leaves gradients too (an adversary's).
        """
        if len(self.watcher.listeners) > 1:
            return None
        seen = self.gradients.passes if self.armed and not self._between and not self._of_evaluation else None
        with torch_module().no_grad():
            left = self._window.left(self.table.readable, seen)
        return None if left is None else {"opt": self.number} | left

    def close(self) -> None:
        """Take everything off."""
        self.gradients.disarm()
        self._armed = self._look = None
        if self in self.hooks.listeners:
            self.hooks.listeners.remove(self)
        if self.own_hooks:
            self.hooks.remove()

    # ---- the listener ----

    def before(self, optimizer: Any) -> None:
        cadence = self.cadence
        cadence.taken += 1
        if cadence.taken == cadence.timed:
            began = cadence.clock()
            self.watcher.before_step(self, whole=True)
            cadence.every_step(cadence.clock() - began)
        elif self.watcher.averages or self.scheduled.of_groups:
            self.watcher.before_step(self, whole=self._armed is not None or not cadence.taken % cadence.stride)
        if self._armed is not None and not compiling():
            began = cadence.clock()
            self._before_look(optimizer)
            self._spent += cadence.clock() - began

    def _look_before(self, optimizer: Any) -> None:
        with self.watcher.guarded(), torch_module().no_grad():
            assert self._armed is not None
            self.step = self.watcher.next_step()
            if self.table.refresh(optimizer, self.watcher.names):  # a group was added, a tensor replaced or moved
                self._armed = self.table.still(self._armed)
            self.watcher.first_look(self)
            self._sees = self.hooks.enclose
            formula = self.formula if self._sees else None
            self._passes = self.gradients.state() if self.hooks.closure else {}
            self._window.before_step(self.table.readable)
            self._by_scaler = bool(getattr(self.declared.scaler, "_per_optimizer_states", True))  # torch's clears it
            searched = self.table.searched(self._armed, self.cadence.taken <= FIRST)
            # a closure, or another's hook, may lie between what is read and what an optimizer of one's own makes of it
            taken = self.taken - 1 if self._sees and not self.hooks.closure else None
            self._look = StepSample(optimizer, formula, self._armed, searched, closure=self.hooks.closure, taken=taken)
            if self.declared.clip and not self.hooks.closure:
                self._look.measure(self.table.all)

    def after(self, optimizer: Any) -> None:
        cadence = self.cadence
        if self._look is not None and not compiling():
            began = cadence.clock()
            self._after_look(optimizer)
            cadence.looked(self._spent + cadence.clock() - began)
            self._spent = 0.0
            if self._again:
                self._again = False
                cadence.soon()
            self.watcher.account()
        self._look = self._armed = None
        if self.watcher.copied:
            self.watcher.after_step(self)
        if cadence.taken >= cadence.mark and not self.watcher.off and not compiling() and cadence.stepped():
            self._next_look()

    def abandoned(self, optimizer: Any) -> None:
        """The step raised: what was read of it is of no use."""
        self._look = self._armed = None
        self.gradients.disarm()
        self.watcher.micros.forget()
        self.cadence.soon()

    def _look_after(self, optimizer: Any) -> None:
        with self.watcher.guarded(), torch_module().no_grad():
            self._finish(optimizer)

    def _arm_guarded(self) -> None:
        with self.watcher.guarded():
            self.arm()

    # ---- one look ----

    def _finish(self, optimizer: Any) -> None:
        look, step = self._look, self.step
        assert look is not None
        steady = self.gradients.steady(self._passes)
        asked = not look.closure and (self.taken <= FIRST or self.declared.scaler is not None)
        seen, stale = self.gradients.read(look.frozen, factor=asked)
        values: dict[str, Any] = {"opt": self.number, "count": self.taken, "looked": look.count}
        if len(self.table.all) != look.count:
            values["tensors"] = len(self.table.all)
        found = look.finish(optimizer, stale, steady)
        if self.declared.clip and look.closure:
            look.measure(self.table.all)
        if self.table.skipped:
            values["unread"] = dict(self.table.skipped)
        if self.formula is None:
            values["formula"] = f"{self.name}: not known"
        elif not self._sees:
            values["formula"] = "a hook of another lies between"
        if look.skipped:
            values["skipped"] = True
        if look.stood:
            values["stood"] = True
        if look.stands:
            values["stands"] = True
        values |= self._forgotten(look)
        self._compare_rates(found)
        if self.table.all and "moved" not in found and not any(_trains(held.parameter) for held in self.table.all):
            values["nothing"] = len(self.table.all)
        if not self.reads_grad and not any(
            h.parameter.requires_grad and h.parameter.grad is not None for h in self.table.all
        ):
            found.pop("moved", None)  # it moves tensors that need no gradient (evolution, a sign of the loss alone)
        if not self.reads_grad and look.still is not True:
            seen.dropped = []  # its gradients may lie elsewhere (main_grad, a flat buffer)
        self.idle = self.reads_grad or look.still is True
        if look.closure or not self._alone(seen):
            seen.cleared = 0
        if any(listener.taken >= FIRST for listener in self.watcher.listeners if listener is not self):
            seen.others = []  # not every pass of theirs is seen any more
        self.seen = seen
        self._window.stepped(seen.counted, self.declared.accumulate)
        of_evaluation, self._of_evaluation = self._of_evaluation, False
        if of_evaluation:
            seen.again = []  # a step is made of what the evaluation has made
        self._by_hand = self._by_hand or seen.by_hand
        if self._by_hand:
            seen.cleared = 0  # one gradient is held against another
        values |= _of_gradients(seen, self.declared.accumulate) | found
        if seen.cleared and self.watcher.losses.unlike(seen.tasks):
            values["unlike"] = True  # a pass for another purpose: the noise of the gradient, say
        if seen.kept and of_evaluation:
            values["of_evaluation"] = True
        values |= self.watcher.around.at(self, self.watcher.listeners)
        values |= self._of_forwards() | self._shared()
        if not look.closure:
            values |= self.watcher.losses.stepped(self, seen, look.scale, by_scaler=self._by_scaler)
        if REPLACES <= self.taken <= FIRST and self.watcher.follows_another(self):
            values["unfollowed"] = True
        resting = self._resting(look) if self.reads_grad else []
        if resting:
            values["resting"] = first_names(resting) | {"of": len(self.table.all)}
        none = self._without_gradient()
        if none and (self.idle or any(held.parameter.grad is not None for held in self.table.all)):
            values["no_gradient"] = first_names(none) | {"of": len(self.table.all)}
        if (
            len(self.watcher.listeners) == 1
            and self.reads_grad
            and self.table.all
            and all(_is_zero(g.get("lr")) for g in optimizer.param_groups)
        ):
            values["no_rate"] = True
            self._again = self._again or self._resting_rates < RESTING
            self._resting_rates += 1
        if look.norm is not None:
            values["norm"], values["clip"] = look.norm, self.declared.clip
            scale = self.scale()
            if scale is not None:
                values["scale"] = scale
            if look.norm_unit > SINGLE:
                values["norm_unit"] = look.norm_unit
        self.watcher.turns.step(self.number)
        self.watcher.emit("step", values, step=step)
        self.watcher.after_look(self, step)

    def _without_gradient(self) -> list[str]:
        """Trainable tensors that had a gradient at no look so far: told at once if they are all, else after FIRST.

        Half of all are told once they are the same for some steps: an expert, a head of another task or an unused layer
        has its turn in the first steps.
        """
        trainable = [held for held in self.table.all if held.parameter.requires_grad]
        self._had |= {id(held.parameter) for held in trainable if held.parameter.grad is not None}
        never = [held.name for held in trainable if id(held.parameter) not in self._had]
        self._same = self._same + 1 if len(never) == self._never else 1
        self._never = len(never)
        half = 2 * len(never) >= len(trainable) and self._same >= SETTLED
        return never if len(never) == len(trainable) or half or self.cadence.taken >= FIRST else []

    def _alone(self, seen: GradientReport) -> bool:
        """Were the gradients of the passes before this step made for this optimizer, and for nothing else?

        A pass that is made for the gradient of an input (adversarial examples) leaves gradients that are cleared. Of
        several optimizers those since the last step of any are told, as long as every step is looked at.
        """
        forwards, others = (
            self.watcher.forwards,
            [listener for listener in self.watcher.listeners if listener is not self],
        )
        passes = seen.lately if others else seen.passes
        return (
            forwards.passes >= passes and not forwards.by_input and all(listener.taken < FIRST for listener in others)
        )

    def _compare_rates(self, found: dict[str, Any]) -> None:
        """Of an optimizer of the script's own: the rate that it took first, beside a rate that has changed since.

        A warm-up within it has one length: another factor on the rate (RAdam's) is none.
        """
        for one in found.get("own", {}).get("groups", []):
            if "warm_up" in one:
                before = self._warm_ups.get(one["group"], 0.0)
                self._warm_ups[one["group"]] = one["warm_up"]
                if abs(before / one["warm_up"] - 1) > SAME_LENGTH:
                    del one["warm_up"]
            first = self._rates.setdefault(one["group"], (one["lr"], one["rate"]))
            if first[0] != one["lr"]:
                one["first"] = {"lr": first[0], "rate": first[1]}

    def _forgotten(self, look: StepSample) -> dict[str, Any]:
        """{"forgotten"} of tensors whose state is gone that an earlier look, or the optimizer before this one, had."""
        if self.taken == REPLACES:
            for old, taken in self._earlier:
                self.counts |= old.counts if old.taken == taken else {}
            self._earlier = []
        now, had = look.counts, self.counts
        lost = [held for held in self.table.all if now.get(id(held.parameter), np.inf) < had.get(id(held.parameter), 0)]
        self.counts = had | now
        if not lost:
            return {}
        before, count = (max(kept[id(held.parameter)] for held in lost) for kept in (had, now))
        told = {"before": before, "count": count} if self.formula is not None and self.formula.counts else {}
        return {"forgotten": first_names([held.name for held in lost]) | told}

    def _shared(self) -> dict[str, Any]:
        """{"twice"} of tensors that another optimizer holds, which steps by turns with this one; of the first steps."""
        if not self.watcher.around.shared or self.taken < REPLACES or self.taken > FIRST:
            return {}
        for other in self.watcher.listeners:
            both = [h.name for h in self.table.all if id(h.parameter) in other.table.ids]
            if other.number > self.number and both and other.number in self.watcher.turns.lately():
                return {"twice": first_names(both) | {"other": other.number}}
        return {}

    def _of_forwards(self) -> dict[str, Any]:
        """What the forward passes of the first steps have shown."""
        watcher, values = self.watcher, {}
        if watcher.forwards.recomputed:
            values["recomputed"] = first_names(list(watcher.forwards.recomputed))
        if watcher.forwards.redrawn:
            values["redrawn"] = first_names(list(watcher.forwards.redrawn))
        if not any("sharded" in listener.table.skipped for listener in watcher.listeners):
            outside = watcher.forwards.outside(
                frozenset().union(*(listener.table.ids for listener in watcher.listeners))
            )
            if outside is not None:
                values["unregistered"] = outside
        return values

    def _resting(self, look: StepSample) -> list[str]:
        """Held tensors that are frozen since the first step and not declared so; told when those without gradient are.

        One that something else writes to (the average of a teacher) is not counted: it is not meant to be trained.
        """
        taken = self.cadence.taken
        if taken == 1:
            self._frozen = dict(look.sums_of_frozen())
        elif taken <= FIRST:
            written = {one for one, total in look.sums_of_frozen() if total != self._frozen.get(one)}
            self._frozen = {one: total for one, total in self._frozen.items() if one not in written}
        if any(_adapts(held.name) and _trains(held.parameter) for held in self.table.all):
            return []  # adapters in a frozen model: what they are put into rests
        resting = [
            held.name
            for held in self.table.all
            if id(held.parameter) in self._frozen and not _trains(held.parameter) and self._meant_to_train(held)
        ]
        return resting if taken >= FIRST or (taken > 1 and 2 * len(resting) >= len(self.table.all)) else []

    def _meant_to_train(self, held: OptimizerTensor) -> bool:
        """Is it a tensor of a watched model that nothing says is to rest?"""
        return self.watcher.around.may_train(held.parameter)


def _adapts(name: str) -> bool:
    """Is it a tensor of an adapter, as peft calls them?"""
    return any(word in name for word in ADAPTERS)


def _is_zero(rate: Any) -> bool:
    return rate is not None and float(rate) == 0.0


def _trains(parameter: Any) -> bool:
    return parameter.requires_grad or parameter.grad is not None


def _of_gradients(seen: GradientReport, accumulate: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if seen.kept:
        _, value = seen.kept[0]
        values["kept"] = first_names([name for name, _ in seen.kept]) | {"value": value}
    if seen.again:
        values["again"] = first_names(seen.again)
    if seen.dropped:
        values["dropped"] = first_names(seen.dropped)
    if seen.others:
        values["others"] = first_names(seen.others)
    if accumulate > 1 and seen.passes:
        values["accumulate"] = accumulate
        values["passes"], values["counted"], values["begins"] = seen.passes, seen.counted, seen.begins
        values["least"] = seen.least
    elif seen.cleared:
        values["cleared"], values["passes"], values["counted"] = seen.cleared, seen.passes, seen.counted
    if seen.shrunk is not None:
        values["shrunk"] = {"pass": seen.shrunk[0], "factor": seen.shrunk[1]}
    return values


def _clock_of(optimizer: Any) -> Callable[[], float]:
    """The thread's clock where all tensors lie on the CPU: there a backward pass runs in the thread of its caller."""
    tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return time.thread_time if all(one.device.type == "cpu" for one in tensors) else time.perf_counter
