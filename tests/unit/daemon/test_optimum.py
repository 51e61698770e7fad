"""The optimum of a linear probe's loss: right against other ways to compute it, and below whatever was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from eegpt_daemon.analysis.objective import BLOCK, Objective
from eegpt_daemon.analysis.optimum import LAMBDAS, LambdaPath, norm, solve
from eegpt_daemon.data.shards import ShardStore
from eegpt_daemon.data.windows import Windows
from eegwatch.run.results.optimum import ModelGap, OptimumPoint, OptimumResult, read, sentences, write

Array = NDArray[np.float64]


def windows(folder: Path, n: int, features: int, classes: int = 2, seed: int = 0) -> Windows:
    """Correlated features of unequal size and an offset in a real pack, of which every fourth row is another split."""
    random = np.random.default_rng(seed)
    mix = random.standard_normal((features, features)) * np.geomspace(3, 0.1, features)
    y = random.integers(0, classes, n)
    x = (random.standard_normal((n, features)) + 0.6 * np.eye(classes, features)[y]) @ mix / features**0.5 + 20
    store = ShardStore(folder, {"n": n, "seed": seed}, features)
    store.open()
    writer = store.writer("a")
    writer.write(x.astype(np.float16))
    writer.finish([])
    pack = store.pack(["a"], lambda *_: None)
    kept = np.flatnonzero(np.arange(n) % 4)
    return Windows(pack, kept.astype(np.int64), y[kept], np.zeros(len(kept), np.int32), ["a"])


def objective(part: Windows, classes: int = 2, *, weighted: bool = True) -> Objective:
    x = part.x.astype(np.float64)
    mean, std = x.mean(0), x.std(0)
    return Objective(part, classes, (-mean / std).astype(np.float32), (1 / std).astype(np.float32), weighted=weighted)


def standardised(o: Objective) -> Array:
    """(n, features + 1), with the column of ones that the bias belongs to: computed here for itself."""
    x = o.windows.x.astype(np.float64)
    z = x * o._scale.numpy().T + o._shift.numpy().T
    return np.concatenate([z, np.ones((len(z), 1))], axis=1)


def newton_of_two_classes(z: Array, y: NDArray[np.int64], c: Array, lam: float) -> float:
    """min P by plain Newton on the difference u of the two classes' weights, which are -u/2 and u/2 at the optimum."""
    u, total = np.zeros(z.shape[1]), c.sum()
    for _ in range(60):
        p = 1 / (1 + np.exp(-z @ u))
        gradient = z.T @ (c * (p - y)) / total + lam / 2 * u
        hessian = (z.T * (c * p * (1 - p))) @ z / total + lam / 2 * np.eye(len(u))
        step = np.linalg.solve(hessian, gradient)
        u -= step
        if abs(gradient @ step) < 1e-18:
            break
    m = np.where(y == 1, 1, -1) * (z @ u)
    return float((c * np.logaddexp(0, -m)).sum() / total + lam / 4 * u @ u)


@pytest.mark.parametrize("lam", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_optimum_is_that_of_an_independent_newton(tmp_path: Path, lam: float, weighted: bool) -> None:
    o = objective(windows(tmp_path, 1600, 24), weighted=weighted)
    y = o.windows.y
    share = np.bincount(y)
    c = (len(y) / (2 * share))[y] if weighted else np.ones(len(y))
    found = solve(o, lam)
    theirs = newton_of_two_classes(standardised(o), y, c, lam)
    assert found.gap <= 1e-9
    assert found.objective == pytest.approx(theirs, abs=1e-8)
    assert found.objective - found.gap <= theirs + 1e-12


def test_value_and_gradient_are_torchs_own_of_the_probe_in_float64(tmp_path: Path) -> None:
    o = objective(windows(tmp_path, 2 * BLOCK, 12, classes=3), 3)
    share = np.bincount(o.windows.y)
    weight = torch.from_numpy(len(o) / (3 * share))
    w = np.random.default_rng(1).standard_normal((13, 3))
    theirs = torch.from_numpy(w).requires_grad_()
    logits = torch.from_numpy(standardised(o)) @ theirs
    loss = F.cross_entropy(logits, torch.from_numpy(o.windows.y), weight=weight)
    loss.backward()  # type: ignore[no-untyped-call]
    value, gradient = o.value_and_gradient(w)
    assert value == pytest.approx(loss.item(), abs=1e-12) and o.value(w) == pytest.approx(value, abs=1e-14)
    assert theirs.grad is not None
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-11)
    np.testing.assert_allclose(o.margins(w, o.windows), logits.detach().numpy(), atol=1e-10)


@pytest.mark.parametrize("classes", [2, 4])
def test_no_probe_of_a_norm_lies_below_its_bound_and_the_bound_is_nearly_reached(tmp_path: Path, classes: int) -> None:
    o = objective(windows(tmp_path, 800, 16, classes), classes)
    path = LambdaPath(o, tmp_path / "kept.npz")
    path.along(LAMBDAS[:7])
    random = np.random.default_rng(2)
    for radius in (0.01, 0.3, 1.7, 4.0):
        bound, reached = path.around(radius)
        assert bound.below(radius) <= reached <= bound.below(radius) + 2e-4
        for _ in range(50):
            w = random.standard_normal((17, classes)) + 3 * bound.w / max(bound.norm, 1e-9)
            w *= radius / norm(w)
            assert o.value(w) >= bound.below(radius)
            shifted = w + random.standard_normal((17, 1))  # the same model, written with longer weights
            assert norm(shifted) == pytest.approx(radius) and o.value(shifted) == pytest.approx(o.value(w), abs=1e-12)


def test_what_adamw_trains_never_lies_below_the_bound_of_its_norm(tmp_path: Path) -> None:
    part = windows(tmp_path, 800, 16)
    o = objective(part)
    z, y = torch.from_numpy(standardised(o)[:, :-1]), torch.from_numpy(part.y)
    weight = torch.from_numpy(len(o) / (2 * np.bincount(part.y)))
    torch.manual_seed(0)
    probe = torch.nn.Linear(16, 2, dtype=torch.float64)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=0.05)
    path = LambdaPath(o, tmp_path / "kept.npz")
    path.along(LAMBDAS[:9])
    for step in range(60):
        optimizer.zero_grad()
        F.cross_entropy(probe(F.dropout(z, 0.1)), y, weight=weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 20 == 19:
            w = torch.cat([probe.weight.T, probe.bias[None]]).detach().numpy()
            assert o.value(w) >= path.around(norm(w))[0].below(norm(w))


def test_solutions_are_kept_and_a_damaged_file_is_solved_again(tmp_path: Path) -> None:
    part, kept = windows(tmp_path, 400, 8), tmp_path / "kept.npz"
    first = LambdaPath(objective(part), kept).along(LAMBDAS[:3])
    again = objective(part)
    assert [s.objective for s in LambdaPath(again, kept).along(LAMBDAS[:3])] == [s.objective for s in first]
    assert again.rows_read == 0
    kept.write_bytes(kept.read_bytes()[:100])
    anew = LambdaPath(again, kept).along(LAMBDAS[:3])
    assert again.rows_read > 0 and anew[-1].objective == pytest.approx(first[-1].objective, abs=1e-9)


def test_a_class_without_a_window_is_said(tmp_path: Path) -> None:
    part = windows(tmp_path, 400, 8)
    part.y[:] = 1
    with pytest.raises(ValueError, match="1 of 2 classes"):
        objective(part)


def test_the_file_says_what_is_proved_and_what_was_measured(tmp_path: Path) -> None:
    model = ModelGap(
        role="final", checkpoint="checkpoints/step-00000010.pt", step=10, loss=0.35, norm=2.0, lam=0.01, lower=0.34601,
        upper=0.3461,
    )  # fmt: skip
    point = OptimumPoint(lam=0.01, objective=0.36, gap=1e-10, loss=0.345, norm=2.1, val_auroc=0.85)
    write(tmp_path, OptimumResult(windows=100, features=8, models=[model], path=[point], chosen=0.01))
    reach = read(tmp_path)
    assert reach is not None
    proved, measured = sentences(reach)
    assert "is within 0.0040 of the best of any linear probe of its norm (2), and at least 0.0039 above it" in proved
    assert "measured, no bound" in measured and "evaluation" not in measured
    write(tmp_path, OptimumResult(reason="model.probe.type is two_layer: …"))
    assert sentences(read(tmp_path) or OptimumResult()) == [
        "no bound on what this run could reach: model.probe.type is two_layer: …"
    ]
    (tmp_path / "optimum.json").write_text("{")
    assert read(tmp_path) is None and read(tmp_path / "nowhere") is None
