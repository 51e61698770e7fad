"""The processes that train one run together: DistributedDataParallel under torch's own launcher, or one alone.

`data.batch_size` is a process's, as everywhere with DistributedDataParallel: one optimizer step takes
batch_size x world_size x accumulation windows. Rank 0 prepares, logs, saves and hears the supervisor; what it decides
reaches the others with the sum of the loss that every step takes anyway.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eegpt_daemon.data.dataset import best_device

PREPARATION = datetime.timedelta(days=30)  # the others wait while rank 0 computes features: two days on a CPU
STEP = datetime.timedelta(minutes=30)  # torch's own default: a collective that takes longer will never end
T = TypeVar("T")


@dataclass
class ProcessGroup:
    """One process among `size`; where it is alone, none of these does anything."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _control: Any = None
    _gradients: Any = None

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """From torchrun's variables: RANK, WORLD_SIZE, LOCAL_RANK."""
        variable = os.environ.get
        return cls(int(variable("RANK", "0")), int(variable("WORLD_SIZE", "1")), int(variable("LOCAL_RANK", "0")))

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def join(self) -> torch.device:
        """Meet the others; returns this process's device."""
        device = best_device(self.local_rank)
        if self.size > 1:
            dist.init_process_group("gloo", timeout=PREPARATION)
            self._control = dist.group.WORLD
            backend = "nccl" if device.type == "cuda" else "gloo"
            self._gradients = dist.new_group(backend=backend, timeout=STEP)
        return device

    def share(self, value: T | None) -> T | None:
        """Rank 0's value, in every process. The others wait for it, however long it takes."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def sum(self, values: list[float]) -> list[float]:
        """Sums over the processes, in float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._control)
        return [float(value) for value in total]

    def collect(self, value: Any) -> list[Any]:
        """Everyone's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module whose gradients are averaged over the processes."""
        if self.size == 1:
            return module
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(
            module,
            device_ids=ids,
            process_group=self._gradients,
            gradient_as_bucket_view=True,
        )

    def share_of(self, rows: Tensor) -> Tensor:
        """This process's share of a micro-batch's rows: the first processes get one more where it does not divide."""
        return rows if self.size == 1 else torch.tensor_split(rows, self.size)[self.rank]

    def lost_another(self, problem: Exception) -> bool:
        """Whether an exception means that another process died."""
        text = str(problem).lower()
        return self.size > 1 and isinstance(problem, RuntimeError) and ("gloo" in text or "nccl" in text)

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
