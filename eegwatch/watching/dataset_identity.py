"""Whether two processes hold the same data set: a sum of a few values of what it has; no sample is asked for.

A sample may draw random numbers or read files. What the object holds is read a few elements
deep: tensors, arrays, lists of files, numbers; the generators that it draws from are left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from eegwatch.watching.tensors import torch_module, why_unread
from eegwatch.watching.workers import state_of

DEEP = 4  # attributes of attributes
MANY = 64  # attributes of one object, and entries of a dictionary
ENDS = 4  # elements of a list at either end
ELEMENTS = 16  # of a tensor or an array


def fingerprint(data: Any) -> str | None:
    """The sum; None where the data set holds nothing that can be read."""
    try:
        parts = list(_parts(data, DEEP))
    except Exception:  # a data set of any make: its attributes may raise anything, and then it is not compared
        return None
    return f"{zlib.crc32(repr(parts).encode()):08x}" if len(parts) > 1 else None


def _parts(one: Any, deep: int) -> Iterator[str]:
    torch = torch_module()
    if one is None or isinstance(one, bool | int | float | str | bytes | range):
        yield repr(one)[:200]
    elif isinstance(one, torch.Tensor):
        yield f"{one.dtype} {tuple(one.shape)}"
        if one.numel() and one.device.type == "cpu" and why_unread(one) in (None, "integer"):
            at = torch.linspace(0, one.numel() - 1, min(ELEMENTS, one.numel())).long()
            yield repr(torch.take(one.detach(), at).tolist())
    elif hasattr(one, "dtype") and hasattr(one, "flat"):
        yield f"{one.dtype} {one.shape}"
        step = max(1, one.size // ELEMENTS)
        yield repr([one.flat[i] for i in range(0, one.size, step)])
    elif isinstance(one, list | tuple):
        yield f"{type(one).__name__} {len(one)}"
        for part in (*one[:ENDS], *one[-ENDS:]) if deep else ():
            yield from _parts(part, deep - 1)
    elif isinstance(one, dict):
        yield f"dict {len(one)}"
        for key in sorted(one, key=str)[:MANY] if deep else ():
            yield str(key)
            yield from _parts(one[key], deep - 1)
    else:
        yield type(one).__qualname__
        held = getattr(one, "__dict__", None)
        if deep and held and state_of(one) is None:
            yield from _parts({name: value for name, value in held.items() if not callable(value)}, deep - 1)
