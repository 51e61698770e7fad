"""The append-only log: whole lines only, whatever happens to the file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from eegwatch.run.log import AppendLog, Tail, read_all, run_decoder
from eegwatch.run.records import End, Eval, Run, Step, number


def write(path: Path, *records: object) -> None:
    log = AppendLog(path)
    for record in records:
        log.append(record)  # type: ignore[arg-type]
    log.close()


def test_a_record_is_one_line_of_json_with_full_float_precision(tmp_path: Path) -> None:
    write(tmp_path / "run.jsonl", Step(time=1.5, step=7, lr=2.8365154082891954e-03, loss=0.1 + 0.2))
    text = (tmp_path / "run.jsonl").read_text()
    assert text.endswith("}\n") and text.count("\n") == 1
    line = json.loads(text)
    assert line["type"] == "step" and line["lr"] == 2.8365154082891954e-03 and line["loss"] == 0.1 + 0.2
    assert "skipped" not in line  # only where it applies


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_non_finite_numbers_are_written_as_strings_and_read_back_as_floats(
    tmp_path: Path, value: float, text: str
) -> None:
    path = tmp_path / "run.jsonl"
    write(path, Step(step=1, lr=1e-3, loss=value, grad_norm=value), Eval(step=1, auroc=value))
    assert all(json.loads(line)["type"] for line in path.read_text().splitlines())
    step, evaluation = read_all(path, run_decoder())
    assert json.loads(path.read_text().splitlines()[0])["loss"] == text
    for read in (number(step.loss), number(step.grad_norm), number(evaluation.auroc)):
        assert read == value or (math.isnan(read) and math.isnan(value))


def test_non_finite_numbers_deep_inside_a_record_are_written_as_strings_too(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, Run(schedule={"name": "one_cycle", "max_lr": math.inf}, overrides=[{"lr": math.nan}]))
    line = json.loads(path.read_text())
    assert line["schedule"]["max_lr"] == "inf" and line["overrides"][0]["lr"] == "nan"


def test_a_null_from_another_writer_is_read_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"type":"step","step":1,"lr":null,"loss":null}\n')
    (step,) = read_all(path, run_decoder())
    assert math.isnan(number(step.lr))


def test_a_torn_last_line_is_not_read_until_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"type":"end","step":1,"reason":"completed"}\n{"type":"end","step":2,"rea')
    tail = Tail(path)
    assert tail.read().data.count(b"\n") == 1
    assert tail.read().data == b""
    with path.open("ab") as file:
        file.write(b'son":"failed"}\n')
    assert run_decoder().decode(tail.read().data) == [End(step=2, reason="failed")]


def test_a_writer_ends_a_torn_line_before_it_writes_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"type":"step","step":1,"lr":2.83')
    write(path, End(step=1, reason="failed"))
    decoder = run_decoder()
    assert [type(r) for r in read_all(path, decoder)] == [End]
    assert decoder.bad == 1


def test_a_line_that_does_not_parse_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    good = b'{"type":"step","step":%d,"lr":1e-3}\n'
    bad = [
        b"not json\n",
        b"\xff\xfe\x00\n",
        b'{"type":3}\n',
        b'{"type":"step","step":"x"}\n',
        b"[" * 5000 + b"\n",
    ]
    path.write_bytes(good % 1 + b"".join(bad) + b"\n" + good % 2)
    decoder = run_decoder()
    assert [r.step for r in read_all(path, decoder)] == [1, 2]
    assert decoder.bad == len(bad)


def test_truncation_replacement_and_deletion_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"one\ntwo\n")
    tail = Tail(path)
    assert tail.read().data == b"one\ntwo\n"
    path.write_bytes(b"new\n")
    chunk = tail.read()
    assert (chunk.reset, chunk.data) == ("truncated", b"new\n")
    other = tmp_path / "other"
    other.write_bytes(b"another file, longer than the one before\n")
    os.replace(other, path)
    chunk = tail.read()
    assert chunk.reset == "replaced" and chunk.data.startswith(b"another")
    path.unlink()
    assert tail.read().reset == "deleted"
    assert tail.read().reset is None and tail.missing
    path.write_bytes(b"back\n")
    assert tail.read().data == b"back\n"


def test_a_line_longer_than_a_chunk_is_still_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"type":"end","step":1,"reason":"' + b"x" * 100_000 + b'"}\nafter\n')
    tail = Tail(path)
    assert len(tail.read(4096).data) > 100_000


def test_chunks_know_the_byte_offset_of_every_line(tmp_path: Path) -> None:
    path = tmp_path / "control.jsonl"
    path.write_bytes(b"a\nbb\n\nccc\n")
    assert list(Tail(path).read().lines()) == [(0, b"a"), (2, b"bb"), (5, b""), (6, b"ccc")]


def test_the_log_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write(tmp_path / "run.jsonl", End(step=0, reason="stopped"))
    assert (tmp_path / "run.jsonl").stat().st_mode & 0o777 == 0o600
