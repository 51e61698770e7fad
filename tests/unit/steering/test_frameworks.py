"""Lightning's and transformers' trainers steered by the control file: a rate, a checkpoint, an evaluation, a stop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from eegwatch.run.control import send
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Checkpoint, End, Eval, Step
from tests.conftest import lazily
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.filterwarnings("ignore")
frameworks = lazily("tests.unit.frameworks")


class Person:
    """Sends one command after the other, each when the one before has its last word."""

    def __init__(self, logs: Path, commands: list[tuple[str, dict[str, Any]]]) -> None:
        self.logs, self.commands, self.sent = logs, list(commands), list[str]()
        self.end = time.monotonic() + PATIENCE_S

    def words(self) -> dict[str, dict[str, Any]]:
        path = self.logs / "daemon.jsonl"
        lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return {a["id"]: a for a in lines if a["status"] != "accepted"}

    def look(self) -> None:
        time.sleep(0.02)
        assert time.monotonic() < self.end
        if self.commands and all(one in self.words() for one in self.sent):
            name, fields = self.commands.pop(0)
            (run,) = [p for p in self.logs.iterdir() if p.is_dir()]
            self.sent.append(send(self.logs, name, run.name, **fields))


def records(logs: Path) -> list[Any]:
    (log,) = logs.glob("*/run.jsonl")
    return read_all(log, run_decoder())


def test_a_lightning_run_takes_a_rate_a_checkpoint_and_a_stop(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    person = Person(logs, [("resume", {"lr": 3e-4, "then": "hold"}), ("checkpoint", {}), ("stop", {})])

    class Sender(frameworks.pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            person.look()

    model = frameworks.Model(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100_000))
    trainer = frameworks.fit(
        tmp_path, model, frameworks.Lightning(logs, interval="step"), callbacks=[Sender()], max_epochs=10_000
    )
    statuses = [person.words()[one]["status"] for one in person.sent]
    assert statuses == ["done", "done", "done"], person.words()
    found = records(logs)
    assert person.words()[person.sent[0]]["effect"]["lr"] == 3e-4
    assert [r.lr for r in found if isinstance(r, Step)][-1] == 3e-4
    (saved,) = [r for r in found if isinstance(r, Checkpoint)]
    assert torch.load(saved.path, weights_only=False)["global_step"] == saved.step
    assert isinstance(found[-1], End) and trainer.global_step < 10_000


def test_a_transformers_run_takes_a_rate_a_checkpoint_an_evaluation_and_a_stop(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    asked: list[tuple[str, dict[str, Any]]] = [
        ("resume", {"lr": 3e-4, "then": "hold"}), ("checkpoint", {}), ("evaluate", {}), ("stop", {}),
    ]  # fmt: skip
    person = Person(logs, asked)

    class Both(frameworks.HuggingFace):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            super().on_step_end(args, state, control, **given)
            person.look()

    frameworks.train(tmp_path, callback=Both(logs), num_train_epochs=10_000, lr_scheduler_type="cosine")
    statuses = [person.words()[one]["status"] for one in person.sent]
    assert statuses == ["done"] * 4, person.words()
    found = records(logs)
    assert [r.lr for r in found if isinstance(r, Step)][-1] == 3e-4
    (saved,) = [r for r in found if isinstance(r, Checkpoint)]
    assert (Path(saved.path) / "trainer_state.json").exists()
    assert [r for r in found if isinstance(r, Eval)] and isinstance(found[-1], End) and found[-1].reason == "stopped"
