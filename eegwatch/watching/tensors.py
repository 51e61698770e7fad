"""Tensors as the watcher reads them: which can be read, a few elements of each, and the sum of all their bits.

torch is never imported here: the objects that are watched are torch's, so it is there. Nothing is written to a tensor,
no random number is drawn, and no graph is recorded: what is read is detached first.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIXED = 4  # elements of each tensor that are read at every look; the largest gradient's element is the fifth
SEARCHED = 1 << 22  # the largest gradient is looked for among so many elements
INTEGERS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


def torch_module() -> Any:
    """torch, which has made the objects that are watched. Raises KeyError where nobody has imported it."""
    return sys.modules["torch"]


def why_unread(tensor: Any) -> str | None:
    """Why the elements of this tensor are not read; None for a plain dense one."""
    torch = torch_module()
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        sharded = hasattr(tensor, "_local_tensor") or type(tensor).__name__ == "FlatParameter"
        return "sharded" if sharded else type(tensor).__name__
    if tensor.layout is not torch.strided:
        return "sparse"
    if tensor.device.type == "meta":
        return "meta"
    if not tensor.is_floating_point():
        return "complex" if tensor.is_complex() else "integer"
    return None if tensor.numel() else "empty"


def spread(n: int) -> tuple[int, int]:
    """(count, stride) of the fixed places that are read of `n` elements: at most FIXED flat indices, evenly spread."""
    return (n, 1) if n <= FIXED else (FIXED, (n - 1) // (FIXED - 1))


def elements(tensor: Any, count: int, stride: int) -> Any:
    """The elements at the places `spread` gives: a view where memory is in order, else a copy. Call it in no_grad."""
    if tensor.is_contiguous():
        return tensor.as_strided((count,), (stride,))
    torch = torch_module()
    return torch.take(tensor, torch.arange(0, count * stride, stride, device=tensor.device))


def place_of_largest(gradient: Any) -> Any:
    """The flat index of a gradient's largest element, as an int64 tensor (1,); of its beginning where it is long."""
    flat = gradient.detach()
    if flat.numel() > SEARCHED:
        flat = flat.reshape(-1)[:SEARCHED] if flat.is_contiguous() else flat[:1]
    return flat.abs().argmax().reshape(1)


def joined(parts: Sequence[Any]) -> Any:
    """Sampled vectors as one vector, of the widest type among them; on their device if they share one, else the CPU."""
    torch = torch_module()
    if not parts:
        return torch.zeros(0)
    kinds, devices = {part.dtype for part in parts}, {part.device for part in parts}
    if len(kinds) > 1 or len(devices) > 1:
        wide = torch.float64 if torch.float64 in kinds else torch.float32
        parts = [part.to("cpu" if len(devices) > 1 else part.device, wide) for part in parts]
    return torch.cat(list(parts))


def host(vector: Any) -> NDArray[np.float64]:
    """A sampled vector as float64 numbers; bfloat16 and the other narrow types are exact in it."""
    torch = torch_module()
    if vector.dtype not in (torch.float32, torch.float64):
        vector = vector.float()
    return np.asarray(vector.cpu().numpy(), np.float64)


def bit_sums(tensors: Iterable[Any]) -> list[int]:
    """The sum of the bits of each tensor, read as integers: another sum is another content. One transfer for all."""
    torch = torch_module()
    sums = []
    for tensor in tensors:
        bare = tensor.detach().contiguous()
        if bare.is_complex():
            bare = torch.view_as_real(bare)
        bits = bare.view(getattr(torch, INTEGERS[bare.element_size()])) if bare.dtype != torch.bool else bare
        sums.append(bits.sum(dtype=torch.int64).reshape(1))
    return [int(one) for one in joined_integers(sums)]


def joined_integers(sums: Sequence[Any]) -> list[int]:
    torch = torch_module()
    if not sums:
        return []
    devices = {one.device for one in sums}
    return list(torch.cat([one.cpu() for one in sums] if len(devices) > 1 else list(sums)).tolist())


def compiling() -> bool:
    """Is this call being traced by torch.compile, or transformed by torch.func? The watcher then looks at nothing.

    What torch.vmap and torch.func.grad hand to a module are tensors without memory of their own.
    """
    torch = torch_module()
    compiler = getattr(torch, "compiler", None)
    if compiler is not None and getattr(compiler, "is_compiling", bool)():
        return True
    transforms = getattr(torch._C, "_functorch", None)
    return getattr(transforms, "peek_interpreter_stack", lambda: None)() is not None


def is_compiled(module: Any) -> bool:
    """Does torch.compile run this module? A hook on it would have it compiled again."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def eagerly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as torch.compile leaves it alone, also where a compiled region calls it.

    As a hook of a tensor it is lost when that is pickled, and torch need not warn of it.
    """
    dynamo = sys.modules.get("torch._dynamo")  # an optimizer that was made has loaded it

    @functools.wraps(function)
    def alone(*given: Any) -> Any:
        return function(*given)

    made: Any = alone if dynamo is None else dynamo.disable(alone)
    made.__torch_unserializable__ = True
    return made  # type: ignore[no-any-return]


def named(models: Sequence[Any]) -> dict[int, str]:
    """The name of each parameter by its id; "module." of a wrapper is taken off, further models have their number."""
    names: dict[int, str] = {}
    for number, model in enumerate(models):
        for name, parameter in model.named_parameters():
            names.setdefault(id(parameter), prefixed(number, plain_name(name)))
    return names


def prefixed(model: int, name: str) -> str:
    """A name in one of several models; that of the first stands alone."""
    return f"{model}:{name}" if model else name


def plain_name(name: str) -> str:
    """A parameter's name without what DDP, FSDP and torch.compile put before it."""
    for wrapper in ("module.", "_orig_mod.", "_fsdp_wrapped_module."):
        name = name.replace(wrapper, "") if name.startswith(wrapper) or f".{wrapper}" in name else name
    return name
