"""torch's AdamW without torch.compile's machinery, which it imports for every first step: seconds of each start."""

from __future__ import annotations

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """The same step on the same numbers; `inspect.unwrap` takes off the decorators that import `torch._dynamo`.

    That import is two fifths of the CPU time of starting a trainer, so of every resume. The optimizer is never compiled
    here; a compiled backbone imports it all the same. Where a torch has no such decorator, nothing is taken off.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
