"""The callbacks in real Lightning and transformers trainers: what is logged, what is said, and that nothing ends training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as S

from eegwatch.check import open_run
from eegwatch.run.history import History
from eegwatch.schedule import parse
from tests.conftest import lazily

pytestmark = pytest.mark.filterwarnings("ignore")
frameworks = lazily("tests.unit.frameworks")


def logged(tmp_path: Path) -> tuple[History, Any]:
    (run,) = (tmp_path / "logs").iterdir()
    checked = open_run(run, None, None)
    outcome = checked.read_to_end()
    return checked.history, outcome


def watched(tmp_path: Path) -> tuple[int, list[str]]:
    """(steps that the watcher looked at, what its rules say)."""
    history, outcome = logged(tmp_path)
    looks = [record for record in history.watched if record.look == "step"]
    said = [f.rule for f in [*outcome.findings, *outcome.past] if f.family in ("equality", "fact")]
    return len(looks), said + [f.rule for f in outcome.findings if f.rule == "watcher_failed"]


def test_lightning_is_watched_for_silent_errors(tmp_path: Path) -> None:
    frameworks.fit(tmp_path, frameworks.Model(), accumulate_grad_batches=2, gradient_clip_val=0.5)
    looks, said = watched(tmp_path)
    assert looks > 3 and said == []


def test_transformers_is_watched_for_silent_errors_over_a_resume(tmp_path: Path) -> None:
    frameworks.train(
        tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.5, save_strategy="steps", save_steps=4, max_steps=4
    )
    frameworks.train(tmp_path, resume=True, gradient_accumulation_steps=2, max_grad_norm=0.5, max_steps=8)
    looks, said = watched(tmp_path)
    assert looks == 8 and said == []


def rate_findings(outcome: Any) -> list[str]:
    return [f.message for f in [*outcome.findings, *outcome.past] if f.rule.startswith("lr_") and f.severity != "info"]


# ---- Lightning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda o: S.StepLR(o, 2),
        lambda o: S.ExponentialLR(o, 0.9),
        lambda o: S.MultiStepLR(o, [1, 2]),
        lambda o: S.CosineAnnealingLR(o, 3),
        lambda o: {"scheduler": S.StepLR(o, 10), "interval": "step"},
        lambda o: {"scheduler": S.CosineAnnealingLR(o, 36), "interval": "step"},
        lambda o: {"scheduler": S.StepLR(o, 1), "interval": "step", "frequency": 10},
        lambda o: {"scheduler": S.LinearLR(o, 1.0, 0.1, total_iters=9), "interval": "step", "frequency": 4},
        lambda o: {"scheduler": S.StepLR(o, 1, 0.5), "interval": "epoch", "frequency": 2},
        lambda o: {"scheduler": S.OneCycleLR(o, 1e-2, total_steps=36), "interval": "step"},
        lambda o: {"scheduler": S.ReduceLROnPlateau(o), "monitor": "val_loss"},
    ],
)
@pytest.mark.parametrize("accumulate", [1, 5])
def test_lightnings_interval_and_frequency_are_part_of_the_law(tmp_path: Path, build: Any, accumulate: int) -> None:
    frameworks.fit(tmp_path, frameworks.Model(build), accumulate_grad_batches=accumulate)
    history, outcome = logged(tmp_path)
    assert history.step.tolist() == list(range(1, (36 if accumulate == 1 else 9) + 1))
    if accumulate == 1:
        assert not rate_findings(outcome), outcome.text()


def test_a_schedule_built_for_steps_under_lightnings_default_interval_is_found(tmp_path: Path) -> None:
    frameworks.fit(tmp_path, frameworks.Model(lambda o: S.CosineAnnealingLR(o, 36)))
    _, outcome = logged(tmp_path)
    assert any("once per epoch" in words for words in rate_findings(outcome)), outcome.text()


def test_the_loss_is_the_mean_over_the_micro_batches(tmp_path: Path) -> None:
    model = frameworks.Model()
    frameworks.fit(tmp_path, model, accumulate_grad_batches=5, max_epochs=1)
    history, _ = logged(tmp_path)
    means = [np.mean(model.losses[i : i + 5]) for i in (0, 5, 10)]
    np.testing.assert_allclose(history.loss, means, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "empty", "odd", "vector"])
def test_a_training_step_without_a_loss_is_a_step_without_a_loss(tmp_path: Path, kind: str) -> None:
    def every_other(loss: Any, index: int) -> Any:
        if kind == "none":
            return None if index % 2 else loss
        return {"empty": {"loss": loss}, "odd": {"loss": loss, "logits": 3}, "vector": loss}[kind]

    frameworks.fit(tmp_path, frameworks.Model(loss=every_other))
    history, _ = logged(tmp_path)
    assert len(history.step) >= 18 and history.end is not None and np.isfinite(history.loss).any()


@pytest.mark.parametrize("returns", [None, {}, {"g": 1.0}, {"loss": torch.tensor(0.5)}])
def test_manual_optimisation_with_two_optimizers(tmp_path: Path, returns: Any) -> None:
    frameworks.fit(tmp_path, frameworks.Gan(returns))
    history, outcome = logged(tmp_path)
    assert history.step.tolist() == list(range(1, 37)) and history.end is not None
    np.testing.assert_allclose(history.lr, 1e-3 * (1 + np.cos(np.pi * np.arange(36) / 36)) / 2, rtol=1e-9)
    assert "lr optimizer 1" in history.metrics
    assert not rate_findings(outcome), outcome.text()


def test_every_metric_of_a_validation_is_logged_under_its_own_name(tmp_path: Path) -> None:
    frameworks.fit(tmp_path, frameworks.Model(), max_epochs=2)
    history, _ = logged(tmp_path)
    first, second = (e.values() for e in history.evals)
    assert set(first) == set(second) == {"loss", "val_f1", "kappa"}
    assert first["val_f1"] == 0.5 and not {"train_loss"} & (set(first) | set(second))
    assert first["kappa"] == second["kappa"] == 0.25  # the same value again: of a model that no longer learns, say


def test_a_lightning_run_that_is_continued_goes_on_in_its_log(tmp_path: Path) -> None:
    build = lambda o: {"scheduler": S.OneCycleLR(o, 1e-2, total_steps=72), "interval": "step"}  # noqa: E731
    trainer = frameworks.fit(tmp_path, frameworks.Model(build), max_epochs=3)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    frameworks.fit(tmp_path, frameworks.Model(build), max_epochs=6, ckpt_path=tmp_path / "last.ckpt")
    history, outcome = logged(tmp_path)
    assert history.step.tolist() == list(range(1, 73)) and [r.attempt for r in history.attempts] == [1, 2]
    assert not rate_findings(outcome), outcome.text()


def test_stochastic_weight_averaging_changes_the_schedule_and_is_logged_as_that(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    swa = StochasticWeightAveraging(swa_lrs=1e-4, swa_epoch_start=2, annealing_epochs=2)
    frameworks.fit(tmp_path, frameworks.Model(lambda o: S.ExponentialLR(o, 0.9)), max_epochs=6, callbacks=[swa])
    history, _ = logged(tmp_path)
    assert [change.schedule for change in history.schedules] == [None]
    assert history.step.tolist() == list(range(1, 73))


def test_a_callback_that_fails_says_so_once_and_training_ends_as_ever(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the log root should be")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = frameworks.fit(tmp_path, frameworks.Model())
    words = [str(w.message) for w in said if "eegwatch" in str(w.message)]
    assert len(words) == 1 and "switched off" in words[0] and trainer.global_step == 36


# ---- transformers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": 5},
        {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 5},
        {"lr_scheduler_type": "polynomial", "warmup_steps": 5},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 10}, "warmup_steps": 4},
        {"lr_scheduler_type": "linear", "gradient_accumulation_steps": 5},
        {"lr_scheduler_type": "cosine", "max_steps": 7},
        {"lr_scheduler_type": "constant"},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "metric_for_best_model": "loss"},
    ],
)
def test_transformers_schedules_are_followed(tmp_path: Path, given: dict[str, Any]) -> None:
    frameworks.train(tmp_path, **given)
    history, outcome = logged(tmp_path)
    assert history.run is not None and history.end is not None and history.end.reason == "completed"
    if given["lr_scheduler_type"] != "reduce_lr_on_plateau":
        assert history.run.schedule is not None
        expected = parse(history.run.schedule).rate(np.arange(len(history.step)))
        np.testing.assert_allclose(history.lr, expected, atol=1e-14)
    assert not rate_findings(outcome), outcome.text()


def test_all_metrics_of_an_evaluation_and_a_gradient_norm_of_zero(tmp_path: Path) -> None:
    class Still(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": (self.weight * 0.0).sum() + 0.7, "logits": torch.zeros(len(x), 2)}

    frameworks.train(tmp_path, model=Still(), eval_strategy="epoch", logging_steps=1)
    history, _ = logged(tmp_path)
    assert (history.grad_norm == 0).all() and len(history.grad_norm) == 36
    assert set(history.evals[0].values()) == {"loss", "eval_accuracy", "auroc"} and len(history.evals) == 3


def test_a_transformers_run_that_is_continued_goes_on_in_its_log(tmp_path: Path) -> None:
    frameworks.train(tmp_path, save_strategy="epoch", num_train_epochs=6, max_steps=72, lr_scheduler_type="cosine")
    assert [c.step for c in logged(tmp_path)[0].checkpoints][:2] == [12, 24]
    for folder in (tmp_path / "out").iterdir():
        if folder.name != "checkpoint-24":
            __import__("shutil").rmtree(folder)
    frameworks.train(
        tmp_path, resume=True, save_strategy="no", num_train_epochs=6, max_steps=72, lr_scheduler_type="cosine"
    )
    history, outcome = logged(tmp_path)
    assert [r.attempt for r in history.attempts] == [1, 2] and history.step.tolist() == list(range(1, 73))
    assert not rate_findings(outcome), outcome.text()


def test_a_transformers_callback_that_fails_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the log root should be")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = frameworks.train(tmp_path)
    words = [str(w.message) for w in said if "eegwatch" in str(w.message)]
    assert len(words) == 1 and "switched off" in words[0] and trainer.state.global_step == 36
