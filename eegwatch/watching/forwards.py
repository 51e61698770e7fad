"""Forward passes of the first steps: what they are given, which parameters they use, and which of them recompute.

The hooks are on the watched models and their batch norms, not on what torch.compile runs, and are taken off after the
first steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from eegwatch.watching.gradients import graph_task, reference
from eegwatch.watching.module_hooks import AtPass
from eegwatch.watching.naming import first_names
from eegwatch.watching.tensors import compiling, is_compiled, plain_name, prefixed, torch_module, why_unread

WALKED = 20_000  # nodes of a graph that are looked at
WALKS = 2  # forward passes whose graphs are looked at
DEEP = 3  # lists of lists, dictionaries of lists, … in what a model is given and makes


class Forwards:
    """What the forward passes of the watched models have shown. `guarded`: switches the watcher off if one raises."""

    def __init__(self, guarded: Any) -> None:
        self._guarded = guarded
        self._handles: list[Any] = []
        self._known: list[Any] = []  # models that have hooks
        self._walks = 0
        self.passes = 0  # of whole models in training mode since the last step
        self.by_input = False  # was one of them given something that gradients are made of?
        self.recomputed: dict[str, None] = {}  # batch norms that moved their statistics within a backward pass
        self.redrawn: dict[str, None] = {}  # dropouts that drew another mask when their pass was made again
        self._drawn: dict[str, set[int]] = {}  # their name -> hashes of the generators' states that they drew from
        self._steps = 0
        self._used: list[Any] = []  # references to parameters in the graphs that no watched model has registered

    def of(self, models: Sequence[Any]) -> None:
        """Watch these models too."""
        kind = torch_module().nn.modules.batchnorm._BatchNorm
        for number, model in enumerate(models):
            if any(model is known for known in self._known):
                continue
            self._known.append(model)
            if any(is_compiled(module) for module in model.modules()):
                continue
            self._handles.append(model.register_forward_hook(AtPass(self._passed)))
            for name, module in model.named_modules():
                if isinstance(module, kind):
                    at = prefixed(number, plain_name(name) or type(module).__name__)
                    self._handles.append(module.register_forward_pre_hook(AtPass(partial(self._normed, at))))
                elif "Dropout" in type(module).__name__:
                    at = prefixed(number, plain_name(name) or type(module).__name__)
                    self._handles.append(module.register_forward_pre_hook(AtPass(partial(self._dropped, at))))

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def stepped(self) -> None:
        """A step was taken: passes are counted anew."""
        self.passes, self.by_input = 0, False
        self._steps += 1
        self._drawn.clear()

    def _normed(self, at: str, module: Any, *_: Any) -> None:
        if module.training and module.track_running_stats and module.momentum != 0 and not compiling():
            with self._guarded():
                if graph_task() >= 0:
                    self.recomputed[at] = None

    def _dropped(self, at: str, module: Any, given: Any, *_: Any) -> None:
        if self._steps >= WALKS or not module.training or not getattr(module, "p", 0) or compiling():
            return
        with self._guarded():
            device = next((one.device for one in _tensors(given, DEEP)), None)
            state = generator_state(device)
            if graph_task() < 0:
                self._drawn.setdefault(at, set()).add(state)
            elif at in self._drawn and state not in self._drawn[at]:
                self.redrawn[at] = None

    def _passed(self, module: Any, given: Any, made: Any) -> None:
        if compiling() or not torch_module().is_grad_enabled():
            return
        with self._guarded():
            inputs = [one for one in _tensors(given, DEEP) if one.requires_grad]
            self.passes += 1
            self.by_input = self.by_input or bool(inputs)
            if self._walks < WALKS and module.training:
                self._walks += 1
                registered = {id(p) for model in self._known for p in model.parameters()}
                ends = {one.grad_fn for one in inputs if one.grad_fn is not None}
                known = registered | {id(one) for one in inputs} | {id(one()) for one in self._used if one is not None}
                found = {id(leaf): leaf for leaf in leaves(_tensors(made, DEEP), ends) if id(leaf) not in known}
                self._used += map(reference, found.values())

    def outside(self, held: frozenset[int]) -> dict[str, Any] | None:
        """Parameters that a forward pass uses, that no watched model has registered and no optimizer holds (ids)."""
        used = [one() for one in self._used if one is not None]
        found = [p for p in used if p is not None and id(p) not in held and p.requires_grad and why_unread(p) is None]
        return first_names([f"a tensor of shape {tuple(p.shape)}" for p in found]) if found else None


def generator_state(device: Any) -> int:
    """A sum of the state of the generator that a dropout on this device draws from, the same in every process."""
    torch = torch_module()
    state = torch.cuda.get_rng_state(device) if device is not None and device.type == "cuda" else torch.get_rng_state()
    return zlib.crc32(state.numpy().tobytes())


def leaves(tensors: Iterator[Any], ends: set[Any]) -> Iterator[Any]:
    """The leaves that these tensors are made of; the graph is followed to `ends` and no further."""
    kinds = torch_module().nn.Parameter, torch_module().Tensor
    waiting = [one.grad_fn for one in tensors if one.grad_fn is not None]
    seen = set(waiting) | ends
    while waiting and len(seen) < WALKED:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if type(variable) in kinds:
            yield variable
        following = {one for one, _ in node.next_functions if one is not None} - seen
        seen |= following
        waiting += following


def _tensors(given: Any, deep: int) -> Iterator[Any]:
    """The tensors in what a module was given or has made: in lists, dictionaries and objects of such."""
    if isinstance(given, torch_module().Tensor):
        yield given
    elif deep and isinstance(given, dict):
        for one in given.values():
            yield from _tensors(one, deep - 1)
    elif deep and isinstance(given, list | tuple):
        for one in given:
            yield from _tensors(one, deep - 1)
