"""Small real training loops for the watcher: what a run's log says of them, judged as `eegwatch check` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eegwatch import RunLog
from eegwatch.check import open_run
from eegwatch.diagnosis.findings import EQUALITY, FACT, Finding

SILENT = (EQUALITY, FACT)


class Loop:
    """A model, an optimizer and a watched log; `run` takes steps by the script's own function."""

    def __init__(
        self,
        folder: Path,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        model: nn.Module | None = None,
        *,
        watch: bool = True,
        resume: Path | None = None,
        step: int = 0,
        **declared: Any,
    ) -> None:
        torch.manual_seed(0)
        self.model = model if model is not None else small()
        make = optimizer or (lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1))
        self.optimizer = make(self.model.parameters())
        self.parts = int(declared.get("accumulate") or 1)
        self.log = RunLog(folder, optimizer=self.optimizer, control=False, resume=resume, step=step)
        if watch:
            self.log.watch(self.model, self.optimizer, **declared)

    def backward(self) -> torch.Tensor:
        loss: torch.Tensor = self.model(torch.randn(4, 8)).pow(2).mean()
        loss = loss / self.parts if self.parts > 1 else loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def step(self, number: int) -> torch.Tensor:
        """A right step."""
        self.optimizer.zero_grad()
        loss = self.backward()
        self.optimizer.step()
        return loss

    def run(self, steps: int, step: Callable[[int], Any] | None = None) -> list[Finding]:
        """Take so many steps, end the run, and judge it."""
        for number in range(1, steps + 1):
            (step or self.step)(number)
            self.log.step()
        return self.judged()

    def judged(self) -> list[Finding]:
        self.log.end()
        return silent(self.log.folder)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))


def silent(folder: Path) -> list[Finding]:
    """What the rules of the watcher say of a run, with what has healed."""
    run = open_run(folder, None, None)
    outcome = run.read_to_end()
    run.close()
    assert not run.diagnosis.isolation.failures, run.diagnosis.isolation.failures
    return [f for f in (*outcome.findings, *outcome.past) if f.family in SILENT or f.rule == "watcher_failed"]


def rules(found: list[Finding]) -> set[str]:
    return {finding.rule for finding in found}


def since(found: list[Finding], rule: str) -> int:
    return min(finding.since_step for finding in found if finding.rule == rule)
