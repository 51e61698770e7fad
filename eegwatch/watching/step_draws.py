"""Random numbers of the first steps: a generator that is put back in each of them draws the same every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eegwatch.watching.forwards import generator_state
from eegwatch.watching.module_hooks import AtPass
from eegwatch.watching.tensors import compiling, is_compiled

STEPS = 4  # in a row with the same states


class StepDraws:
    """The states of torch's generator at the first forward pass in training mode and before the optimizer's step."""

    def __init__(self, guarded: Callable[[], Any]) -> None:
        self._guarded = guarded
        self._handles: list[Any] = []
        self._known: list[Any] = []
        self.begins: Callable[[], None] | None = None  # called once, when the first pass in training mode comes
        self._at_pass: int | None = None
        self._last: tuple[int, int] | None = None  # at the pass, before the step
        self._alike = 0
        self._device: Any = None  # of the models' first parameter: a dropout draws from its generator
        self.told = False

    def of(self, models: Sequence[Any]) -> None:
        """Watch these models too."""
        for model in models:
            first = next(iter(model.parameters()), None)
            self._device = first.device if self._device is None and first is not None else self._device
            if all(model is not known for known in self._known):
                self._known.append(model)
                if not any(is_compiled(module) for module in model.modules()):
                    self._handles.append(model.register_forward_pre_hook(AtPass(self._passed)))

    def _passed(self, module: Any, *_: Any) -> None:
        if self._at_pass is None and module.training and not compiling():
            with self._guarded():
                self._at_pass = generator_state(self._device)
                begins, self.begins = self.begins, None
                if begins is not None:
                    begins()

    def drawn(self) -> dict[str, int] | None:
        """{"from", "to"}: sums of the generator's states at the pass before the step that comes, and now.

        None where no pass has come, or nothing was drawn since.
        """
        now = generator_state(self._device)
        return None if self._at_pass is None or self._at_pass == now else {"from": self._at_pass, "to": now}

    def before_step(self) -> bool:
        """A step comes that is looked at. Has the generator drawn the same in STEPS steps in a row?"""
        at_pass, self._at_pass = self._at_pass, None
        if at_pass is None or self.told:
            return False
        now = at_pass, generator_state(self._device)
        self._alike = self._alike + 1 if now == self._last and now[0] != now[1] else 0
        self._last = now
        self.told = self._alike == STEPS - 1
        return self.told

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._known = [], []
