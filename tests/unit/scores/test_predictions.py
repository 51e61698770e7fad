"""Predictions on disk: whole, numbers only, and a file that is none is refused in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from eegwatch.scores.predictions import Predictions, PredictionsError, corpus_hash
from tests.unit.scores.cohorts import cohort


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    predictions = cohort(1, classes=3)
    path = tmp_path / "best" / "predictions-val.npz"
    predictions.save(path)
    read = Predictions.load(path)
    assert (read.step, read.corpus) == (7, "c")
    for name in ("recording", "subject", "start", "label", "logits", "score"):
        np.testing.assert_array_equal(getattr(read, name), getattr(predictions, name))
    assert path.stat().st_mode & 0o777 == 0o600
    with np.load(path) as file:
        assert all(file[name].dtype.kind in "iuf" for name in file.files if name != "corpus")


def rewritten(path: Path, **changed: object) -> Path:
    predictions = cohort(1)
    predictions.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{name: value for name, value in (arrays | changed).items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"logits": None}, "lacks logits"),
        ({"score": None, "start": None}, "lacks start, score"),
        ({"logits": np.zeros(5)}, r"\(windows, classes\)"),
        ({"logits": np.zeros((5, 1))}, "two classes or more"),
        ({"label": np.zeros(3, np.int64)}, "label must be"),
        ({"recording": np.array(["a", "b"])}, "recording must be"),
        ({"start": np.array([["x"]])}, "start must be"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    path = rewritten(tmp_path / "predictions-eval.npz", **changed)
    with pytest.raises(PredictionsError, match=words) as error:
        Predictions.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_labels_out_of_range_and_recordings_of_two_labels_are_refused(tmp_path: Path) -> None:
    label = cohort(1).label
    with pytest.raises(PredictionsError, match="label must be from 0 to 1"):
        Predictions.load(rewritten(tmp_path / "a.npz", label=label + 1))
    mixed = label.copy()
    mixed[0] = 1 - mixed[0]
    with pytest.raises(PredictionsError, match="a recording has two values of label"):
        Predictions.load(rewritten(tmp_path / "b.npz", label=mixed))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"not an archive", b"\x80\x04K\x01."])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions-val.npz"
    path.write_bytes(content)
    with pytest.raises(PredictionsError, match="cannot be read"):
        Predictions.load(path)


def test_every_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    cohort(1).save(whole)
    content = whole.read_bytes()
    for size in range(0, len(content), len(content) // 40):
        path = tmp_path / "cut.npz"
        path.write_bytes(content[:size])
        with pytest.raises(PredictionsError):
            Predictions.load(path)


def test_an_object_array_is_not_unpickled(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, recording=np.array([object()], dtype=object))
    path = tmp_path / "predictions-val.npz"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(PredictionsError):
        Predictions.load(path)


def test_a_file_that_is_not_there_says_when_it_will_be(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="first evaluation"):
        Predictions.load(tmp_path / "predictions-val.npz")


def test_the_corpus_hash_knows_order_and_labels_and_holds_no_name() -> None:
    hashes = {corpus_hash(["a", "b"], [0, 1]), corpus_hash(["b", "a"], [0, 1]), corpus_hash(["a", "b"], [1, 0])}
    assert len(hashes) == 3 and corpus_hash(["a", "b"], [0, 1]) in hashes
