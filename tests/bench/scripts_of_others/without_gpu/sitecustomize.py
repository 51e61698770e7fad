"""For a machine without a GPU, in PYTHONPATH of a script of others: `.cuda()` does nothing, loss scalers are the CPU's."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any


class AfterTorch(importlib.abc.MetaPathFinder):
    """Changes torch when it is imported; a script that does not import it is left alone."""

    def find_spec(self, name: str, path: Any, target: types.ModuleType | None = None) -> Any:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            stay_on_the_cpu(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def stay_on_the_cpu(torch: Any) -> None:
    def itself(self: Any, *_: Any, **__: Any) -> Any:
        return self

    torch.nn.Module.cuda = torch.Tensor.cuda = itself
    torch.cuda.set_device = lambda *_: None  # each its own function: torch.compile tells them apart
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.FloatTensor, torch.cuda.LongTensor = torch.FloatTensor, torch.LongTensor
    torch.cuda.amp.GradScaler = lambda **given: torch.amp.GradScaler("cpu", **given)
    register = torch.library.register_fake

    def register_fake(op: str, *given: Any, **more: Any) -> Callable[..., Any]:
        """torchvision's compiled operators are missing where it was built for a CUDA torch; these scripts use none."""
        return (lambda f: f) if op.startswith("torchvision::") else register(op, *given, **more)

    torch.library.register_fake = register_fake


sys.meta_path.insert(0, AfterTorch())
