"""Checkpoints: whole or not there, verified, loaded weights-only."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from eegpt_daemon.trainer.checkpoint import (
    NEEDED,
    VERSION,
    CheckpointError,
    load,
    name_of,
    prune,
    ranked,
    save,
    step_of,
)


def state(step: int) -> dict[str, object]:
    return dict.fromkeys(NEEDED, 0) | {
        "version": VERSION,
        "step": step,
        "probe": {"w": torch.arange(6.0)},
        "best": float("-inf"),
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate()},
        "overrides": [{"command": "x", "from_step": 3, "lr": 1e-3}],
    }


def test_what_is_saved_is_loaded_weights_only(tmp_path: Path) -> None:
    path, digest = save(tmp_path, 1166, state(1166))
    assert path == "checkpoints/step-00001166.pt" and len(digest) == 64
    loaded = load(tmp_path / path)
    assert loaded["step"] == 1166 and torch.equal(loaded["probe"]["w"], torch.arange(6.0))
    torch.set_rng_state(loaded["rng"]["torch"])
    assert (tmp_path / path).stat().st_mode & 0o777 == 0o600


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    save(tmp_path, 1, state(1))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001.pt"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "missing", "numpy"])
def test_a_checkpoint_that_is_none_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / save(tmp_path, 5, state(5))[0]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "flipped":
        path.write_bytes(b"\x00" * 100 + path.read_bytes()[100:])
    elif damage == "foreign":
        torch.save({"epoch": 3}, path)
    elif damage == "numpy":
        torch.save({"version": VERSION, "auroc": np.float64(0.8)}, path)
    else:
        path.unlink()
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_that_lacks_something_is_refused_by_its_name(tmp_path: Path) -> None:
    whole = state(5)
    del whole["rng"], whole["sampler"]
    path = tmp_path / save(tmp_path, 5, whole)[0]
    with pytest.raises(CheckpointError, match="lacks sampler, rng"):
        load(path)


def test_the_best_are_ranked_and_the_newer_wins_a_tie() -> None:
    ranking: list[tuple[float, str]] = []
    for value, name in [(0.7, "a"), (0.9, "b"), (0.8, "c"), (0.9, "d"), (0.1, "e")]:
        ranking = ranked(ranking, value, name, 3)
    assert ranking == [(0.9, "d"), (0.9, "b"), (0.8, "c")]
    assert ranked(ranking, 0.95, "d", 3) == [(0.95, "d"), (0.9, "b"), (0.8, "c")]


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        save(tmp_path, step, state(step))
    (tmp_path / "checkpoints" / ".step-00000099.pt.1.tmp").write_bytes(b"half")
    prune(tmp_path, 10_000, {name_of(20)})
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [Path(name_of(s)).name for s in (20, 60, 70)]


def test_what_lies_beyond_the_step_gone_back_to_is_left_alone(tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        save(tmp_path, step, state(step))
    prune(tmp_path, 45, set())
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [Path(name_of(s)).name for s in (30, 40, 50, 60, 70)]


def test_step_numbers_are_read_off_names_of_any_length() -> None:
    assert step_of("checkpoints/step-00001166.pt") == 1166
    assert step_of(name_of(123_456_789_012)) == 123_456_789_012
    assert step_of("step-12.pt") is None and step_of(".step-00000001.pt.9.tmp") is None
