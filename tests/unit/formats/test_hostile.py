"""Every reader returns on any bytes: broken lines, numbers beyond every limit, NUL, and files cut off anywhere."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eegwatch.formats import find
from eegwatch.formats.line_scanner import Scanner
from eegwatch.formats.names import role
from eegwatch.formats.numerals import embedded, python_dict
from eegwatch.formats.unread_log import unread
from eegwatch.run.follow import FormatError
from tests.unit.formats.samples import ALL, Sample, content, read

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = (
    "a.log",
    "metrics.csv",
    "metrics.json",
    "a.jsonl",
    "trainer_state.json",
    "a.ipynb",
    "results.csv",
    "a.csv.gz",
    "h.json",
)
BAD_NUMBERS = [
    "1e999",
    "-1e400",
    "NaN",
    "nan",
    "inf",
    "-Infinity",
    "9" * 400,
    "0x10",
    "1e",
    "--3",
    "1/0",
    "2**70",
    "",
    "1_000",
    "٣",
]


def whatever(path: Path) -> None:
    """Followed to its end, or refused in one line."""
    if find(path) is None:
        return
    refusal = ""
    try:
        _, _, history = read(path)
    except FormatError as error:  # a kind whose reader is not installed, for one: wandb
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        return
    steps = history.step.tolist()
    assert all(a < b for a, b in pairwise(steps)) and all(0 < step < 1 << 62 for step in steps)
    if not history.length and not history.evals:
        assert "\n" not in str(unread(path))


@QUICK
@given(data=st.binary(max_size=3000), name=st.sampled_from(NAMES))
@example(data=b"SQLite format 3\0", name="a.log")
@example(data=b":W&B", name="a.log")
def test_any_bytes(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    whatever(path)


@QUICK
@given(sample=st.sampled_from(ALL), seed=st.integers(0, 1 << 30))
def test_a_log_with_bytes_changed_cut_out_and_doubled(tmp_path: Path, sample: Sample, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(sample.text.encode() * chance.choice([1, 1, 3]))
    for _ in range(chance.randrange(1, 12)):
        at = chance.randrange(len(data))
        change = chance.randrange(3)
        if change == 0:
            data[at] = chance.randrange(256)
        elif change == 1:
            del data[at : at + chance.randrange(1, 60)]
        else:
            data[at:at] = chance.choice(BAD_NUMBERS).encode()
        if not data:
            return
    path = tmp_path / Path(sample.file).name
    path.write_bytes(bytes(data))
    whatever(path)


@QUICK
@given(sample=st.sampled_from(ALL), bad=st.sampled_from(BAD_NUMBERS), seed=st.integers(0, 1 << 30))
def test_a_number_that_is_none(tmp_path: Path, sample: Sample, bad: str, seed: int) -> None:
    numbers = list(re.finditer(r"\d+(?:\.\d+)?(?:e-?\d+)?", sample.text))
    which = random.Random(seed).choice(numbers)
    path = tmp_path / Path(sample.file).name
    path.write_text(sample.text[: which.start()] + bad + sample.text[which.end() :])
    whatever(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**30), 10**30) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(rows=st.lists(st.dictionaries(st.sampled_from(["step", "loss", "lr", "epoch", "iter", "mode", "x", "time", "val", "log_history"]), VALUES, max_size=6), max_size=6), name=st.sampled_from(["a.jsonl", "a.json", "trainer_state.json"]))  # fmt: skip
def test_any_json(tmp_path: Path, rows: list[dict[str, Any]], name: str) -> None:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), errors="replace")
    whatever(path)
    path.write_text(
        json.dumps({"global_step": 3, "log_history": rows, "max_steps": rows[0] if rows else None}), errors="replace"
    )
    whatever(path)


@pytest.mark.parametrize("text", ["{" * 5000, "[" * 100_000, '{"a":' * 3000, "{'a': " * 3000, "{'a': {" * 3000 + "1", "loss: " * 3000, "1 " * 20_000, "a=" * 9000 + "1", "(" * 9000 + "loss 1"])  # fmt: skip
def test_deep_and_long_lines_take_no_time(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.log"
    path.write_text(text + "\nstep 1 loss 0.5\n" + text + "\n")
    assert read(path)[2].step.tolist() == [1]
    python_dict(text)
    embedded(text)
    Scanner().scan(text)
    role(text[:300])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_and_one_of_zeros(name: str, tmp_path: Path) -> None:
    for data in (b"", b"\0" * 5000, b"\n\n\n", b"\xff\xfe", b"\x1f\x8b"):
        path = tmp_path / name
        path.write_bytes(data)
        whatever(path)


def test_a_packed_log_that_is_torn_gives_what_came_before(tmp_path: Path) -> None:
    text = "".join(f"step {n} loss {math.sin(n):.6f}\n" for n in range(1, 20_000))
    whole = gzip.compress(text.encode())
    path = tmp_path / "train.log.gz"
    path.write_bytes(whole[: len(whole) // 2])
    _, follower, history = read(path)
    assert 1000 < history.length < 19_999 and history.step[0] == 1 and follower.bad_lines == 1


def test_a_counter_that_runs_wild_is_left_out_and_counted(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "two_writers.log"
    path.write_text("".join(f"step {chance.randrange(1, 1000)} loss 0.5\n" for _ in range(5000)))
    _, follower, history = read(path)
    assert follower.bad_lines > 0 and len(history.attempts) <= 1003
    assert content(history)["steps"] == sorted(set(history.step.tolist()))
