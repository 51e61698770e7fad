"""`eegwatch compare`: the same recordings, paired draws, what differs, and a verdict that the data can carry."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from eegwatch.cli import main
from eegwatch.comparison.seeds import keep_scores
from eegwatch.scores.intervals import differences, over_seeds
from eegwatch.scores.predictions import Predictions
from eegwatch.scores.resampled_metrics import Resampled
from eegwatch.scores.threshold import youden
from tests.unit.scores.cohorts import cohort


def noisy(base: Predictions, seed: int, scale: float) -> Predictions:
    draw = np.random.default_rng(seed).normal(0, scale, base.logits.shape).astype(np.float32)
    return replace(base, logits=base.logits + draw)


def a_run(logs: Path, name: str, test: Predictions, val: Predictions | None = None, **experiment: object) -> Path:
    folder = logs / name
    folder.mkdir(parents=True)
    test.save(folder / "predictions-eval.npz")
    (val or cohort(90, subjects=40)).save(folder / "predictions-val.npz")
    tree = {"experiment": {"name": name, "seed": 1, **experiment}, "data": {"batch_size": 32}}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    looks = '{"type":"eval","step":7,"split":"eval","auroc":0.9}\n'
    (folder / "run.jsonl").write_text('{"type":"run","run_id":"' + name + '"}\n' + looks)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    base = cohort(5, subjects=80, shift=0.9)
    first = a_run(tmp_path, "first", base)
    second = a_run(tmp_path, "second", noisy(base, 1, 0.8), description="noise & more")
    config = yaml.safe_load((second / "config.yaml").read_text())
    config["data"]["batch_size"] = 64
    (second / "config.yaml").write_text(yaml.safe_dump(config))
    return first, second


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_each_difference_is_that_of_a_paired_bootstrap(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(compared(capsys, *runs, "--json"))
    threshold = youden(cohort(90, subjects=40).recordings())
    sides = [Resampled(Predictions.load(run / "predictions-eval.npz").recordings(), threshold) for run in runs]
    expected = differences(sides[:1], sides[1:], ["auroc", "sensitivity"])
    (pair,) = found["comparisons"]
    for name, difference in expected.items():
        said = pair["differences"]["recording"][name]
        assert said["value"] == difference.value and tuple(said["ci95"]) == difference.interval
    assert pair["configuration"] == [{"key": "data.batch_size", "first": 32, "second": 64}]
    assert found["subjects"] == 80 and [run["looks"] for run in found["runs"]] == [1, 1]
    assert "looked at 2 times by these runs" in found["remarks"][0]


def test_the_verdict_says_whether_the_set_can_tell_them_apart(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = runs
    like = a_run(tmp_path, "alike", noisy(cohort(5, subjects=80, shift=0.9), 3, 0.02))
    said = compared(capsys, first, second, like)
    assert "window AUROC of second is" in said and "lower than of first" in said
    assert "the evaluation set tells them apart" in said
    assert "the evaluation set cannot tell them apart; it resolves differences of about 0.00" in said
    assert "data.batch_size: 32 -> 64" in said and "the configurations do not differ" in said
    assert "2 comparisons: each interval has a level of 95 %" in said


def test_few_subjects_are_said_to_be_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = a_run(tmp_path, "a", cohort(1, subjects=8))
    b = a_run(tmp_path, "b", noisy(cohort(1, subjects=8), 1, 3.0))
    said = compared(capsys, a, b)
    assert "8 subjects are too few to say whether that is chance" in said and "tell them apart" not in said


def test_markdown_and_latex_hold_the_table(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = compared(capsys, *runs, "--markdown")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * 8 and all(row.count("|") == 6 for row in rows)
    paper = compared(capsys, *runs, "--latex")
    assert paper.count(r"\\") == 1 + 2 * 8 and r"\begin{tabular}{lllll}" in paper


def test_latex_escapes_what_names_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (a_run(tmp_path, name, cohort(1, subjects=20)) for name in ("a_b%1", "c&d#"))
    assert r"a\_b\%1 & c\&d\#" in compared(capsys, a, b, "--latex")


def test_the_seeds_of_two_series_are_compared_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = cohort(5, subjects=60, shift=0.7)
    for series, scale in (("x", 0.1), ("y", 1.5)):
        for seed in (1, 2, 3):
            name = f"20260101-00000{seed}-{series}-seed{seed}"
            a_run(tmp_path, name, noisy(base, seed, scale), series=series, seed=seed, seeds=[1, 2, 3])
    one, other = tmp_path / "20260101-000001-x-seed1", tmp_path / "20260101-000002-y-seed2"
    found = json.loads(compared(capsys, one, other, "--seeds", "--json"))
    assert [(run["name"], run["seeds"], run["looks"]) for run in found["runs"]] == [
        ("x", [1, 2, 3], 3),
        ("y", [1, 2, 3], 3),
    ]
    each = [
        float(Resampled(noisy(base, seed, 0.1).windows()).values(np.ones((1, 60)), ["auroc"])["auroc"][0])
        for seed in (1, 2, 3)
    ]
    assert found["runs"][0]["figures"]["window"]["auroc"]["value"] == pytest.approx(np.mean(each))
    assert found["comparisons"][0]["differences"]["window"]["auroc"]["told_apart"] is True
    assert found["comparisons"][0]["configuration"] == []  # the same seeds, in other runs


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_a_run_and_its_copy_differ_by_nothing(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "window AUROC of first is 0.0000 higher" in compared(capsys, runs[0], runs[0])


def test_what_cannot_be_compared_is_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = runs
    assert "give two runs or more" in refused(capsys, first)
    assert "no such folder" in refused(capsys, first, tmp_path / "nowhere")
    other = a_run(tmp_path, "others", cohort(8, subjects=80))
    assert "not scored on the same recordings" in refused(capsys, first, other)
    elsewhere = a_run(tmp_path, "renamed", replace(cohort(5, subjects=80, shift=0.9), corpus="d"))
    assert "not scored on the same recordings" in refused(capsys, first, elsewhere)
    assert "is not a run of a series" in refused(capsys, first, second, "--seeds")
    assert "when its training has ended" in refused(capsys, first, second, "--model", "best")
    whole = cohort(5, subjects=80, shift=0.9)
    kept = whole.label == 1
    of_one = {name: getattr(whole, name)[kept] for name in ("recording", "subject", "start", "label", "logits")}
    one = a_run(tmp_path, "one-class", replace(whole, **of_one))
    assert "one-class: no window has label 0" in refused(capsys, one, one)
    (tmp_path / "nothing").mkdir()
    assert "holds no run" in refused(capsys, first, tmp_path / "nothing")
    assert "is a file" in refused(capsys, first, first / "config.yaml")
    broken = noisy(cohort(5, subjects=80, shift=0.9), 1, 0.1)
    broken.logits[4] = np.nan
    nan = a_run(tmp_path, "nan", broken)
    assert "1 of" in (said := refused(capsys, first, nan)) and "scores are not finite" in said


def test_other_windows_of_the_same_recordings_are_compared_by_recording(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = cohort(5, subjects=80, shift=0.9)
    kept = base.start < 10
    fewer = Predictions(*(getattr(base, n)[kept] for n in ("recording", "subject", "start", "label", "logits")), 7, "c")
    found = json.loads(compared(capsys, runs[0], a_run(tmp_path, "fewer", fewer), "--json"))
    assert list(found["comparisons"][0]["differences"]) == ["recording"]
    assert "only recordings are compared" in found["remarks"][0]


def test_comparing_needs_neither_torch_nor_mne_nor_scipy(runs: tuple[Path, Path]) -> None:
    program = (
        "import sys; from eegwatch.cli import main; code = main(['compare', *sys.argv[1:], '--json']);"
        "print([m for m in ('torch', 'mne', 'scipy', 'sklearn', 'textual') if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, runs)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_a_series_is_one_row_with_its_mean_and_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = cohort(5, subjects=60, shift=0.7)
    first = "20260101-000001-x-seed1"
    for seed in (1, 2):
        more = {"series": first, "seed": seed, "seeds": [1, 2, 3]}
        folder = a_run(tmp_path, f"20260101-00000{seed}-x-seed{seed}", noisy(base, seed, 0.5), **more)
        scores = keep_scores(folder)
        assert scores is not None and scores.seeds == list(range(1, seed + 1))
    alone = a_run(tmp_path, "20260101-000009-alone", base)
    assert keep_scores(alone) is None
    units = [noisy(base, seed, 0.5).windows() for seed in (1, 2)]
    mean, interval = over_seeds([Resampled(one) for one in units], ["auroc"])["auroc"]
    assert scores.figures["auroc"] == [mean, *interval]
    assert main(["runs", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3 and rows[2].startswith(f"{first} …") and "2 of 3 seeds" in rows[2]
    assert f"{mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f}) over 2 seeds" in rows[2]
    assert main(["runs", str(tmp_path), "--seeds"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["runs", str(tmp_path), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one.get("series"), one.get("seed")) for one in found] == [(None, None), (first, 2), (first, 1)]


def test_a_spoiled_series_file_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = "20260101-000001-x-seed1"
    folder = a_run(tmp_path, first, cohort(5, subjects=20), series=first, seed=1, seeds=[1, 2])
    for content in (b"", b"{", b'{"seeds": "x", "figures": {}}', b'{"seeds": [1], "figures": {"auroc": []}}'):
        (folder / "series.json").write_bytes(content)
        assert main(["runs", str(tmp_path)]) == 0
        assert first in capsys.readouterr().out
