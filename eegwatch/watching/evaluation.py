"""Around an evaluation: the bits of the weights and batch norms before and after it, and the mode of what ran in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.gather import Gathered
from eegwatch.watching.model_state import STATISTICS, WITH_MODES
from eegwatch.watching.module_hooks import AtPass, Guard
from eegwatch.watching.naming import first_names
from eegwatch.watching.tensors import (
    bit_sums,
    elements,
    is_compiled,
    plain_name,
    prefixed,
    spread,
    torch_module,
    why_unread,
)

THERE_AND_BACK = 8.0  # units in the last place that moving a weight away and back may leave
FORWARDS = 2  # of each evaluation whose random numbers are looked for


class TrainingModeHook:
    """Called at a module whose forward pass depends on its mode: notes that it ran in training mode.

    A module in training mode below a model in evaluation mode was put there on purpose (dropout that samples).
    """

    def __init__(self, name: str, trained: dict[str, bool], sampling: set[str], root: Any) -> None:
        self._name, self._trained, self._sampling, self._root = name, trained, sampling, root

    def __call__(self, module: Any, *_: Any) -> None:
        if module.training and self._root.training:
            self._trained[self._name] = "Dropout" not in type(module).__name__
        elif module.training:
            self._sampling.add(self._name)


class KeptNumbers:
    """Called at a module with numbers of its own kept as buffers: do they move as it runs in training mode?

    Running statistics are read with the weights; a codebook, a centre or a memory bank is such a buffer.
    """

    def __init__(self, name: str, module: Any, root: Any) -> None:
        self._module, self._root, self.name = module, root, name
        self.trained = False
        with torch_module().no_grad():
            self._sums = self._now()

    def __call__(self, module: Any, *_: Any) -> None:
        self.trained = self.trained or (module.training and self._root.training)

    def moved(self) -> bool:
        """Are they others than before?"""
        return self._now() != self._sums

    def _now(self) -> list[int]:
        return bit_sums(kept_numbers(self._module))


def kept_numbers(module: Any) -> list[Any]:
    """The floating-point buffers of this very module that are no running statistics of a batch norm."""
    if any(kind in type(module).__name__ for kind in WITH_MODES):
        return []
    own = [one for name, one in module.named_buffers(recurse=False) if name not in STATISTICS]
    return [one for one in own if why_unread(one) is None]


class RandomDraws:
    """Called around the forward pass of a whole model: does it draw random numbers, and in which mode?"""

    def __init__(self, name: str, drawn: dict[str, int], trained: dict[str, bool], root: Any) -> None:
        """`drawn`, `trained`: what is told of passes in evaluation mode and in training mode."""
        self._name, self._drawn, self._trained, self._root = name, drawn, trained, root
        self._before: bytes | None = None
        self.forwards = 0

    def before(self, module: Any, *_: Any) -> None:
        if self.forwards < FORWARDS:
            self._before = _generators(module)

    def after(self, module: Any, *_: Any) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        self.forwards += 1
        if _generators(module) == before:
            return
        if module.training:
            if self._root.training:
                self._trained[self._name] = False  # functional dropout, or a model that samples
        else:
            self._drawn[self._name] = self._drawn.get(self._name, 0) + 1


def _generators(module: Any) -> bytes:
    """The states of torch's generators that this module may draw from."""
    torch = torch_module()
    states = [torch.get_rng_state()]
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    states += [torch.cuda.get_rng_state(device) for device in devices]
    return b"".join(state.numpy().tobytes() for state in states)


class Evaluation:
    """One evaluation of the watched models."""

    def __init__(self, models: Sequence[Any], step: int, guarded: Guard) -> None:
        """`step`: the last one before it. `guarded`: switches the watcher off if a hook raises."""
        self.step, self._guarded = step, guarded
        self._trained: dict[str, bool] = {}  # what ran in training mode -> is it anything but a dropout?
        self._sampling: set[str] = set()  # what was put into training mode below a model in evaluation mode
        self._changed: list[str] = []
        self._handles: list[Any] = []
        self._tensors: dict[str, Any] = {}
        self._modules = 0
        self._drawn: dict[str, int] = {}
        self._drawn_in_training: dict[str, bool] = {}
        self._kept: list[KeptNumbers] = []
        self._draws: list[RandomDraws] = []
        for number, model in enumerate(models):
            compiled = any(is_compiled(module) for module in model.modules())
            if not compiled:
                at = prefixed(number, type(model).__name__)
                draws = RandomDraws(at, self._drawn, self._drawn_in_training, _inner(model))
                self._draws.append(draws)
                self._handles += [
                    model.register_forward_pre_hook(self._hook(draws.before)),
                    model.register_forward_hook(self._hook(draws.after)),
                ]
            for name, module in model.named_modules():
                at = prefixed(number, plain_name(name) or type(module).__name__)
                self._read(at, module)
                if not compiled and kept_numbers(module):
                    self._kept.append(KeptNumbers(at, module, _inner(model)))
                    self._handles.append(module.register_forward_pre_hook(self._hook(self._kept[-1])))
                if not compiled and _has_modes(module):
                    self._modules += 1
                    hook = TrainingModeHook(at, self._trained, self._sampling, _inner(model))
                    self._handles.append(module.register_forward_pre_hook(self._hook(hook)))
        with torch_module().no_grad():
            self._sums = bit_sums(self._tensors.values())
        self._before = self._few_elements()
        self._within = self._before  # while the evaluation ran

    def _hook(self, call: Callable[..., None]) -> AtPass:
        """A hook on a watched module; a copy of the module, which an evaluation may make and train, has none."""

        def guarded(*given: Any) -> None:
            with self._guarded():
                call(*given)

        return AtPass(guarded)

    def _read(self, at: str, module: Any) -> None:
        found = list(module.named_parameters(recurse=False))
        found += [(name, one) for name, one in module.named_buffers(recurse=False) if name in STATISTICS]
        self._tensors |= {f"{at}.{name}": one for name, one in found if why_unread(one) is None}

    def finish(self) -> dict[str, Any]:
        """{"modules": how many modes were watched, "train_mode": what ran so, "waits": tensors that are others now}.

        Averaged weights may be put back behind the evaluation: whether it has changed the model is known before the
        next step (`before_step`).
        """
        self.close()
        self._changed = self._others()
        values: dict[str, Any] = {"modules": self._modules, "tensors": len(self._tensors)}
        if self._changed:
            self._within = self._few_elements()
            values["waits"] = len(self._changed)
        values["forwards"] = sum(draws.forwards for draws in self._draws)
        if self._drawn and not self._trained and not self._sampling:
            values["draws"] = first_names(list(self._drawn))
        with torch_module().no_grad():
            moved = {kept.name: False for kept in self._kept if kept.trained and kept.moved()}
        self._trained = self._trained | moved or self._drawn_in_training
        if self._trained:
            values["train_mode"] = first_names(list(self._trained)) | {"samples": not any(self._trained.values())}
        return values

    def _others(self) -> list[str]:
        with torch_module().no_grad():
            now = bit_sums(self._tensors.values())
        return [name for name, a, b in zip(self._tensors, self._sums, now) if a != b]

    def before_step(self) -> dict[str, Any] | None:
        """{"tensors", "changed": what is still another than before the evaluation}; None where nothing waits."""
        if not self._changed:
            return None
        others = set(self._others())
        moved = self._beyond_rounding()
        changed = [name for name in self._changed if name in others and name in moved]
        return {"tensors": len(self._tensors)} | ({"changed": first_names(changed)} if changed else {})

    def _few_elements(self) -> list[NDArray[np.float64]]:
        """A few elements of each tensor, as they are now."""
        gathered = Gathered()
        with torch_module().no_grad():
            for tensor in self._tensors.values():
                count, stride = spread(int(tensor.numel()))
                gathered.add(elements(tensor, count, stride), count)
            gathered.copy()
        values, starts = gathered.values()
        return [values[begin:end] for begin, end in pairwise(starts)]

    def _beyond_rounding(self) -> set[str]:
        """Tensors that did not come back from the evaluation as far as their type can hold them.

        An optimizer without a schedule of its own moves the weights to their average and back: a product and a sum.
        """
        torch, found = torch_module(), set()
        for (name, tensor), before, within, now in zip(
            self._tensors.items(), self._before, self._within, self._few_elements()
        ):
            largest = max(float(np.abs(one).max(initial=0.0)) for one in (before, within, now))
            with np.errstate(invalid="ignore"):
                off = np.abs(now - before) > THERE_AND_BACK * float(torch.finfo(tensor.dtype).eps) * largest
            if off.any() or not np.isfinite(largest):
                found.add(name)
        return found

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _has_modes(module: Any) -> bool:
    """Does the forward pass of this module depend on its mode? Norms without statistics and dropouts of 0 are alike."""
    if not any(kind in type(module).__name__ for kind in WITH_MODES):
        return False
    share = getattr(module, "p", None)
    return bool(getattr(module, "track_running_stats", True)) and not (isinstance(share, int | float) and share == 0)


def _inner(model: Any) -> Any:
    """The model inside what DistributedDataParallel and torch.compile put around it: whose mode a script sets."""
    while hasattr(inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None), "named_modules"):
        model = inner
    return model
