"""A script of two processes with DistributedDataParallel, for tests/e2e/test_ranks.py: `torchrun … ddp_script.py LOGS OUT`.

Its scheduler is never stepped, which is the fault. It ends by a stop that is asked of it; each rank writes what it saw.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from eegwatch import RunLog

TOTAL = 1_000_000


def train(logs: str, out: str) -> None:
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)))
    first, second = model.module
    rates = [torch.tensor(1e-3), torch.tensor(1e-4)]  # float32 tensors, as a fused or compiled optimizer has
    groups = [{"params": list(m.parameters()), "lr": r} for m, r in zip((first, second), rates, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=rates[0])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOTAL, eta_min=1e-6)
    log = RunLog(logs, "ddp", schedule=scheduler, optimizer=optimizer, total_steps=TOTAL)
    draw = torch.Generator().manual_seed(rank)
    seen: dict[str, Any] = {"rates": {}, "checkpoints": [], "evaluations": []}
    step = 0
    while not log.stop_requested:
        step += 1
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4, generator=draw)).square().mean()
        loss.backward()
        before = [m.weight.detach().clone() for m in (first, second)]
        optimizer.step()
        # the step that plain SGD takes: what the weights moved by, over the gradient
        seen["rates"][step] = [
            float(((b.double() - m.weight.double()) / m.weight.grad.double()).median())
            for b, m in zip(before, (first, second), strict=True)
        ]
        log.step(loss=loss)
        if log.checkpoint_requested:
            seen["checkpoints"].append(step)
            dist.barrier()  # a job that gathers its state would wait here for a rank that does not come
            if rank == 0:
                torch.save(model.state_dict(), Path(out) / "model.pt")
                log.checkpoint(Path(out) / "model.pt")
        if log.evaluation_requested:
            seen["evaluations"].append(step)
            total = loss.detach().clone()
            dist.all_reduce(total)
            if rank == 0:
                log.eval(loss=total)
        time.sleep(0.002)
    log.end("stopped")
    seen["steps"], seen["folder"] = step, str(log.folder)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    seen["weights"] = weights.double().tolist()
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    train(*sys.argv[1:3])
    dist.destroy_process_group()
