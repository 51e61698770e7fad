"""Weights that processes share are one set of weights: ranks that read them at different times differ in nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from eegwatch.watching.replicas import in_shared_memory, is_copy


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1, timeout=timedelta(seconds=60)
    )
    yield
    dist.destroy_process_group()


def test_a_model_of_its_own_memory_is_a_copy(group: None) -> None:
    wrapped = DistributedDataParallel(nn.Linear(4, 2))
    assert not in_shared_memory(wrapped)
    assert is_copy(wrapped)


def test_a_model_that_was_handed_to_spawned_processes_is_no_copy(group: None) -> None:
    """`mp.spawn(train, args=(model, ...))` moves the weights of a model on the CPU into shared memory."""
    wrapped = DistributedDataParallel(nn.Linear(4, 2).share_memory())
    assert in_shared_memory(wrapped)
    assert not is_copy(wrapped)


def test_an_empty_tensor_is_asked_nothing() -> None:
    assert not in_shared_memory(nn.ParameterDict({"empty": nn.Parameter(torch.empty(0, 3))}))
