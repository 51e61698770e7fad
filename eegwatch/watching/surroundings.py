"""What the watched models are beside a step: frozen parts, modes, tensors that no optimizer holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eegwatch.watching.tensors import bit_sums, plain_name, prefixed, torch_module, why_unread

WITH_MODES = ("Dropout", "BatchNorm", "InstanceNorm")  # whose forward pass depends on the mode, by their class's name


class Frozen:
    """What was declared to be frozen: its bits before the first step are its bits after each."""

    def __init__(self, what: Iterable[Any], models: Sequence[Any]) -> None:
        """`what`: modules, parameters, or names of either ("backbone" is everything below it)."""
        self.tensors: dict[str, Any] = {}
        self.unknown: list[str] = []
        named = {
            prefixed(number, plain_name(name)): tensor
            for number, model in enumerate(models)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        for one in what:
            if isinstance(one, str):
                found = {n: t for n, t in named.items() if n == one or n.startswith(f"{one}.") or f".{one}." in f".{n}"}
                if not found:
                    self.unknown.append(one)
                self.tensors |= found
            elif hasattr(one, "named_parameters"):
                own = {id(t) for t in (*one.parameters(), *one.buffers())}
                found = {n: t for n, t in named.items() if id(t) in own}
                self.tensors |= found or dict((*one.named_parameters(), *one.named_buffers()))
            else:
                self.tensors |= {next((n for n, t in named.items() if t is one), "a declared tensor"): one}
        self.tensors = {n: t for n, t in self.tensors.items() if why_unread(t) in (None, "integer")}
        self._sums: list[int] | None = None

    def begin(self) -> None:
        """What it is before the first step that is looked at."""
        if self._sums is None:
            self._sums = bit_sums(self.tensors.values())

    def changed(self) -> list[str]:
        """The names of what has changed since."""
        now = bit_sums(self.tensors.values())
        return [] if self._sums is None else [n for n, a, b in zip(self.tensors, self._sums, now) if a != b]


class Modes:
    """Which models have been in training mode at a step, and are not any more."""

    def __init__(self, models: Sequence[Any]) -> None:
        self._trained: set[int] = set()  # numbers of parts that took a step in training mode
        self._parts: list[tuple[str, Any]] = []
        for number, model in enumerate(models):
            inner = getattr(model, "module", model)
            self._parts.append((prefixed(number, type(model).__name__), model))
            self._parts += [(prefixed(number, name), part) for name, part in inner.named_children()]

    def lost(self) -> list[str]:
        """Models, and parts right below them, that took a step in training mode and are in evaluation mode now.

        As a whole, and with something to train in them: frozen parts and lone batch norms are put there on purpose.
        """
        names = []
        for number, (name, part) in enumerate(self._parts):
            if part.training:
                self._trained.add(number)
            elif number in self._trained and _all_evaluate(part):
                names.append(name)
        return names


def _all_evaluate(part: Any) -> bool:
    modules = list(part.modules())
    if any(module.training for module in modules) or all("Norm" in type(module).__name__ for module in modules):
        return False
    return any(parameter.requires_grad for parameter in part.parameters())


def moving_norms(models: Sequence[Any]) -> list[str]:
    """Batch norms whose weights are frozen while their running statistics move: they are in training mode."""
    torch = torch_module()
    kind = torch.nn.modules.batchnorm._BatchNorm
    found = []
    for number, model in enumerate(models):
        for name, module in model.named_modules():
            if not isinstance(module, kind) or not module.training or module.running_mean is None:
                continue
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own) and module.momentum != 0:
                found.append(prefixed(number, plain_name(name)))
    return found


def outside(models: Sequence[Any], held: set[int]) -> list[str]:
    """Trainable parameters of the models that no watched optimizer holds."""
    return [
        prefixed(number, plain_name(name))
        for number, model in enumerate(models)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]


class Ties:
    """Tensors that have two names in a model: `lost` are those whose names mean two tensors by now."""

    def __init__(self, models: Sequence[Any]) -> None:
        self.pairs: list[tuple[str, Any, str, str]] = []  # (shown, model, name, name)
        for number, model in enumerate(models):
            seen: dict[int, str] = {}
            for name, parameter in model.named_parameters(remove_duplicate=False):
                first = seen.setdefault(id(parameter), name)
                if first != name:
                    shown = prefixed(number, f"{plain_name(first)} = {plain_name(name)}")
                    self.pairs.append((shown, model, first, name))

    def lost(self) -> list[str]:
        """Pairs that are two tensors now; one whose name is gone (LoRA, a parametrization) is no tie any more."""
        found = []
        for shown, model, first, second in self.pairs:
            one, other = _at(model, first), _at(model, second)
            if one is not None and other is not None and one is not other:
                found.append(shown)
        return found


def _at(model: Any, name: str) -> Any:
    for part in name.split("."):
        model = getattr(model, part, None)
    return model
