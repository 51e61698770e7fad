"""What the watched models are beside a step: frozen parts, modes, tensors that no optimizer holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eegwatch.watching.cadence import FIRST
from eegwatch.watching.naming import first_names
from eegwatch.watching.tensors import bit_sums, plain_name, prefixed, torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.optimizer_listener import OptimizerListener
    from eegwatch.watching.optimizer_tensors import OptimizerTensor

STATISTICS = ("running_mean", "running_var")
POSITIONS = ("pos_emb", "position", "pos_enc")  # in names of tables that many models keep fixed
WITH_MODES = ("Dropout", "BatchNorm", "InstanceNorm")  # whose forward pass depends on the mode, by their class's name


class Surroundings:
    """What the watched models are beside an optimizer's own work. `shared`: ids of tensors that several hold."""

    def __init__(self) -> None:
        self.shared: set[int] = set()
        self.frozen: Frozen | None = None
        self._layout = ModelLayout([])
        self._modes, self._ties = TrainingModes([]), TiedTensors([])

    def of(self, models: list[Any]) -> None:
        """These models are watched."""
        self._layout = ModelLayout(models)
        self._modes, self._ties = TrainingModes(models), TiedTensors(models)

    def find_shared(self, listeners: Sequence[OptimizerListener]) -> None:
        """Which tensors do several of the watched optimizers hold?"""
        seen: set[int] = set()
        self.shared.clear()
        for listener in listeners:
            optimizer = listener.hooks.optimizer
            groups = [] if optimizer is None else optimizer.param_groups
            held = {id(p) for group in groups for p in group["params"]}
            self.shared |= seen & held
            seen |= held

    def evaluation_begins(self) -> None:
        """Note the modes that an evaluation finds."""
        self._modes.note()

    def may_train(self, parameter: Any) -> bool:
        """Is it a parameter of a watched model, as it was at the last look, that nothing says is to rest?

        What was declared frozen is, and so are tables of positions: a frozen embedding and what is called one.
        """
        if id(parameter) not in self._layout.parameters or id(parameter) in self._declared_frozen():
            return False
        name, _ = self._layout.parameters[id(parameter)]
        return id(parameter) not in self._layout.embeddings and not any(word in name for word in POSITIONS)

    def _declared_frozen(self) -> set[int]:
        return set() if self.frozen is None else {id(one) for one in self.frozen.tensors.values()}

    def begin(self) -> None:
        """A step that is looked at comes."""
        if self.frozen is not None:
            self.frozen.begin()

    def at(self, listener: OptimizerListener, listeners: Sequence[OptimizerListener]) -> dict[str, Any]:
        """What a look at a step of `listener`, one of `listeners`, finds."""
        values: dict[str, Any] = {}
        with torch_module().no_grad():
            changed = self.frozen.changed() if self.frozen is not None else []
        if changed:
            values["frozen"] = first_names(changed)
        if self._ties.pairs:
            values["ties"] = len(self._ties.pairs)
            untied = self._ties.lost()
            if untied:
                values["untied"] = first_names(untied)
        drawing = self.frozen.drawing() if self.frozen is not None else []
        if drawing:
            values["drawing"] = first_names(drawing)
        lost = self._modes.lost()
        never = self._modes.never(listener.table.ids) if listener.taken == FIRST else []
        if lost or never:
            values["eval_mode"] = first_names(lost or never)
            if not lost:
                values["never"] = True
        self._layout.refresh()
        others = frozenset().union(*(one.table.ids for one in listeners if one is not listener)) - listener.table.ids
        moving = self._layout.moving_norms(others)
        if moving:
            values["norms"] = first_names(moving)
        values |= self._unheld(listener, listeners)
        empty = empty_group(listener, frozen=not all(p.requires_grad for _, p in self._layout.parameters.values()))
        return values | ({"empty": empty} if empty is not None else {})

    def _unheld(self, listener: OptimizerListener, listeners: Sequence[OptimizerListener]) -> dict[str, Any]:
        """Trainable tensors that no optimizer holds, and held ones that no model has."""
        values: dict[str, Any] = {}
        held, own = frozenset().union(*(one.table.ids for one in listeners)), self._layout.parameters
        frozen = self._declared_frozen()
        missing = [(n, p) for i, (n, p) in own.items() if p.requires_grad and i not in held and i not in frozen]
        strangers = (
            [] if listener.table.ids <= own.keys() else [h for h in listener.table.all if id(h.parameter) not in own]
        )
        without = all(h.parameter.grad is None for h in strangers)
        masters = strangers and not (without and listener.idle) and _are_masters(strangers, [p for _, p in missing])
        if missing and not masters:
            values["outside"] = first_names([name for name, _ in missing])
        if own and strangers:
            alive = sum(p.requires_grad and p.grad is not None and id(p) not in held for _, p in own.values())
            if without and alive and listener.idle:
                values["strangers"] = first_names([h.name for h in strangers]) | {
                    "of": len(listener.table.all),
                    "alive": alive,
                }
        return values


def empty_group(listener: OptimizerListener, *, frozen: bool) -> dict[str, Any] | None:
    """A group without a tensor whose decay or rate was meant for some that others hold; None where there is none.

    A decay of 0 is meant for biases and norms (vectors), another one for matrices. A rate of its own is meant for a
    part of the model, which may be left out on purpose where something is `frozen`.
    """
    groups = listener.hooks.optimizer.param_groups
    if all(group["params"] for group in groups):
        return None
    for number, group in enumerate(groups):
        if group["params"]:
            continue
        decay = group.get("weight_decay", 0.0)
        meant = [h for h in listener.table.all if h.parameter.requires_grad and (h.parameter.ndim < 2) == (not decay)]
        by_decay = [h for h in meant if bool(groups[h.group].get("weight_decay", 0.0)) != bool(decay)]
        by_rate = [] if frozen else [h for h in listener.table.all if _rate(groups[h.group]) != _rate(group)]
        for name, found in (
            ("weight_decay", by_decay),
            ("lr", by_rate if len(by_rate) == len(listener.table.all) else []),
        ):
            if found:
                other = groups[found[0].group]
                own, others = (_rate(one) if name == "lr" else float(one[name]) for one in (group, other))
                return {"group": number, "name": name, "own": own, "others": others} | first_names(
                    [h.name for h in found]
                )
    return None


def _rate(group: dict[str, Any]) -> float:
    """What a group's rate is built with, whatever a scheduler has made of it since."""
    return float(group.get("initial_lr", group["lr"]))


def _are_masters(strangers: Sequence[OptimizerTensor], missing: Sequence[Any]) -> bool:
    """Has the optimizer, in shape or as a whole, what no optimizer holds of the models: float32 copies of it?"""
    left = Counter(tuple(parameter.shape) for parameter in missing)
    own = Counter(tuple(held.parameter.shape) for held in strangers)
    return not left - own or sum(p.numel() for p in missing) == sum(h.parameter.numel() for h in strangers)


class Frozen:
    """What was declared to be frozen: its bits before the first step are its bits after each."""

    def __init__(self, what: Sequence[Any], models: Sequence[Any]) -> None:
        """`what`: modules, parameters, or names of either ("backbone" is everything below it)."""
        self.tensors: dict[str, Any] = {}
        self.unknown: list[str] = []
        named = {
            prefixed(number, plain_name(name)): tensor
            for number, model in enumerate(models)
            for name, tensor in (*model.named_parameters(), *statistics(model))
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
                self.tensors |= found or dict((*one.named_parameters(), *statistics(one)))
            else:
                self.tensors |= {next((n for n, t in named.items() if t is one), "a declared tensor"): one}
        modules = [*models, *(one for one in what if hasattr(one, "named_modules"))]
        self._dropouts = dropouts_within(modules, {id(tensor) for tensor in self.tensors.values()})
        self.tensors = {n: t for n, t in self.tensors.items() if why_unread(t) in (None, "integer")}
        self._sums: list[int] | None = None

    def begin(self) -> None:
        """What it is before the first step that is looked at."""
        if self._sums is None:
            self._sums = bit_sums(self.tensors.values())

    def drawing(self) -> list[str]:
        """Dropouts within frozen parts that are in training mode now."""
        return [name for name, part in self._dropouts.items() if part.training]

    def changed(self) -> list[str]:
        """The names of what has changed since."""
        now = bit_sums(self.tensors.values())
        return [] if self._sums is None else [n for n, a, b in zip(self.tensors, self._sums, now) if a != b]


def statistics(model: Any) -> list[tuple[str, Any]]:
    """The running statistics of a model, by name; other buffers are caches and counters, which a pass may move."""
    return [(name, one) for name, one in model.named_buffers() if name.split(".")[-1] in STATISTICS]


class TrainingModes:
    """Which models have been in training mode at a step, and are not any more."""

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = models
        self._trained: set[int] = set()  # numbers of parts that took a step in training mode
        self._parts: list[tuple[str, Any]] = []
        for number, model in enumerate(models):
            inner = getattr(model, "module", model)
            self._parts.append((prefixed(number, type(model).__name__), model))
            self._parts += [(prefixed(number, name), part) for name, part in inner.named_children()]

    def note(self) -> None:
        """An evaluation begins: what is in training mode now is to be so again at the next step."""
        self._trained |= {number for number, (_, part) in enumerate(self._parts) if part.training}

    def never(self, held: frozenset[int]) -> list[str]:
        """Whole models with dropouts or batch norms that have taken no step in training mode, and train.

        `held`: ids of what the optimizer holds. A model whose input alone is trained evaluates on purpose.
        """
        names = []
        for number, (name, part) in enumerate(self._parts):
            whole = any(part is model for model in self._models)
            if whole and number not in self._trained and _all_evaluate(part) and _depends_on_mode(part, held):
                names.append(name)
        return names

    def lost(self) -> list[str]:
        """Models, and parts right below them, that have been in training mode and take a step in evaluation mode.

        They took a step in it, or an evaluation began in it.

        As a whole, and with something to train in them: frozen parts and lone batch norms are put there on purpose.
        """
        names = []
        for number, (name, part) in enumerate(self._parts):
            if part.training:
                self._trained.add(number)
            elif number in self._trained and _all_evaluate(part):
                names.append(name)
        return names


def has_recurrence(models: Sequence[Any]) -> bool:
    """Is one of their modules recurrent? Such a model may carry its state from one batch to the next."""
    kinds = (torch_module().nn.RNNBase, torch_module().nn.RNNCellBase)
    return any(isinstance(module, kinds) for model in models for module in model.modules())


def _depends_on_mode(model: Any, held: frozenset[int]) -> bool:
    """Has it a dropout, or a batch norm that trains, beside weights that an optimizer trains?"""

    def trains(module: Any, *, recurse: bool) -> bool:
        return any(p.grad is not None and id(p) in held for p in module.parameters(recurse=recurse))

    for module in model.modules():
        kind = type(module).__name__
        if "Dropout" in kind and isinstance(getattr(module, "p", None), float) and module.p > 0:
            return trains(model, recurse=True)
        if "BatchNorm" in kind and trains(module, recurse=False):
            return True
    return False


def _all_evaluate(part: Any) -> bool:
    modules = list(part.modules())
    if any(module.training for module in modules) or all("Norm" in type(module).__name__ for module in modules):
        return False
    return any(parameter.requires_grad for parameter in part.parameters())


def dropouts_within(models: Sequence[Any], frozen: set[int]) -> dict[str, Any]:
    """Dropouts in modules whose parameters are all among `frozen` (their ids), by name."""
    found: dict[str, Any] = {}
    for number, model in enumerate(models):
        for name, module in model.named_modules():
            parameters = list(module.parameters())
            if not parameters or not all(id(parameter) in frozen for parameter in parameters):
                continue
            for below, part in module.named_modules():
                if "Drop" in type(part).__name__ and float(getattr(part, "p", 1.0) or 0):
                    found.setdefault(prefixed(number, plain_name(f"{name}.{below}".strip("."))), part)
    return found


class ModelLayout:
    """The parameters and batch norms of the watched models; walked anew when a module or a parameter has been replaced.

    `parameters`: (name, parameter) by the parameter's id.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = models
        self._modules: list[Any] = []
        self._known: list[int] = []  # ids of all that the modules hold
        self._norms: list[tuple[str, Any]] = []
        self.parameters: dict[int, tuple[str, Any]] = {}
        self.embeddings: set[int] = set()  # ids of the tables of embeddings
        self._norm_weights: dict[int, list[int]] = {}  # of frozen batch norms at the last look, by id
        self._averages: set[int] = set()  # ids of frozen batch norms whose weights are written to

    def refresh(self) -> None:
        """Walk the models if something in them was replaced since."""
        if self._held() == self._known and self._modules:
            return
        kind = torch_module().nn.modules.batchnorm._BatchNorm
        embedding = torch_module().nn.Embedding
        self._modules, self._norms, self.parameters, self.embeddings = [], [], {}, set()
        for number, model in enumerate(self._models):
            for name, module in model.named_modules():
                self._modules.append(module)
                if isinstance(module, kind):
                    self._norms.append((prefixed(number, plain_name(name)), module))
                elif isinstance(module, embedding):
                    self.embeddings.add(id(module.weight))
            for name, parameter in model.named_parameters():
                self.parameters.setdefault(id(parameter), (prefixed(number, plain_name(name)), parameter))
        self._known = self._held()

    def _held(self) -> list[int]:
        """The ids of what lies directly in each module; what they named is held, so that no id is given anew."""
        found: list[int] = []
        for module in self._modules:
            found += map(id, module._parameters.values())
            found += map(id, module._modules.values())
        return found

    def moving_norms(self, others: frozenset[int]) -> list[str]:
        """Batch norms whose weights are frozen while their running statistics move: they are in training mode.

        Those of another optimizer (ids in `others`) are frozen while this one steps, as an adversary is. Weights that
        are written to are an average of others, whose statistics are to move too.
        """
        found: list[str] = []
        sums: dict[int, list[int]] = {}
        for name, module in self._norms:
            if not module.training or module.running_mean is None or not module.track_running_stats:
                continue
            own = list(module.parameters(recurse=False))
            if not own or module.momentum == 0 or any(p.requires_grad or id(p) in others for p in own):
                continue
            sums[id(module)] = bit_sums([p for p in own if why_unread(p) is None])
            if self._norm_weights.get(id(module), sums[id(module)]) != sums[id(module)]:
                self._averages.add(id(module))
            if id(module) not in self._averages:
                found.append(name)
        self._norm_weights = sums
        return found


class TiedTensors:
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
