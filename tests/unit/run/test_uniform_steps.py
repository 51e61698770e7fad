"""Step records read by their layout: the same columns to the bit as attribute by attribute, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from eegwatch.run import parsing
from eegwatch.run.columns import block_of
from eegwatch.run.follow import history_of
from eegwatch.run.history import COLUMNS, StepBlock
from eegwatch.run.items import items
from eegwatch.run.log import run_decoder
from eegwatch.run.records import Eval, Run, Step, encode
from eegwatch.run.uniform_steps import (
    NotUniformError,
    UniformStep,
    block_of_uniform,
    step_of,
    uniform_decoder,
)

FULL = bool(os.environ.get("EEGWATCH_FULL"))
DROPPED = {"epoch", "batch"}


def columns(block: StepBlock) -> dict[str, bytes]:
    return {name: getattr(block, name).tobytes() for name in COLUMNS}


def by_both(lines: bytes) -> tuple[StepBlock, StepBlock]:
    """(by layout, by attributes)."""
    return block_of_uniform(uniform_decoder().decode_lines(lines)), block_of(run_decoder().decode(lines))  # type: ignore[arg-type]


def number(draw: np.random.Generator) -> str:
    """A number as some writer may write it: whole, short, with every digit, tiny, huge."""
    value = float(draw.normal() * 10.0 ** draw.integers(-320, 308))
    forms = [repr(value), f"{value:.3g}", f"{value:.17g}", str(int(draw.integers(-9, 9))), "0.1", "-0.0", f"{value:.6e}",
             f"{draw.random():.25f}", "1e-400", "5e-324", "1.7976931348623157e308", "9007199254740993"]  # fmt: skip
    return forms[int(draw.integers(len(forms)))]


@pytest.mark.parametrize("seed", range(400 if FULL else 20))
def test_to_the_bit_the_columns_are_those_of_the_attributes(seed: int) -> None:
    draw = np.random.default_rng(seed)
    named = [name for name in ("lr", "position", "loss", "grad_norm", "samples_per_s") if draw.random() < 0.7]
    null = {name for name in ("lr", "position", "loss", "grad_norm", "samples_per_s") if draw.random() < 0.1}
    lines = []
    for step in range(1, int(draw.choice([1, 15, 16, 300])) + 1):
        fields = [f'"step":{step * int(draw.choice([1, 1000003]))}', f'"time":{number(draw)}', '"type":"step"']
        fields += [f'"{name}":{"null" if name in null else number(draw)}' for name in named]
        fields += [f'"epoch":{step // 7}', '"batch":null', '"of_a_later_version":{"x":[1,2]}']
        lines.append("{" + ",".join(fields[i] for i in draw.permutation(len(fields))) + "}\n")
    try:
        uniform, general = by_both("".join(lines).encode())
    except msgspec.DecodeError:  # a number beyond float64, for both
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.Decoder(Step).decode_lines("".join(lines))
        return
    assert columns(uniform) == columns(general) and uniform.plain and general.plain


@pytest.mark.parametrize(
    "odd",
    [
        {"loss": "nan"}, {"loss": None}, {"lr": None}, {"lr": "inf"}, {"skipped": 2}, {"lrs": [0.5]},
        {"metrics": {"a": 1}}, {"metrics": {}}, {"grad_norm": "-inf"}, {"step": 2.5}, {"step": 2**53}, {"step": -(2**53)},
        {"loss": ...}, {"loss": ..., "lrs": [0.5]}, {"loss": None, "grad_norm": None, "metrics": {"x": 1.5}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_record_of_another_layout_makes_it_no_uniform_chunk(odd: dict[str, Any], at: int) -> None:
    """Among them layouts of the same length: a loss less and one rate of groups more."""
    records: list[dict[str, Any]] = [
        {"type": "step", "step": n, "time": 1.5, "lr": 0.1, "loss": 0.5, "grad_norm": 1.0} for n in range(1, 4)
    ]
    records[at] = {name: value for name, value in (records[at] | odd).items() if value is not ...}
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    with pytest.raises(NotUniformError):
        block_of_uniform(uniform_decoder().decode_lines(lines))


def test_it_has_the_fields_of_a_step_but_for_those_that_no_column_holds() -> None:
    steps, uniform = Step.__struct_fields__, UniformStep.__struct_fields__
    assert [name for name in steps if name not in DROPPED] == list(uniform)
    for name in uniform:
        if name not in ("step", "time"):
            assert getattr(UniformStep(step=1.0), name) is getattr(Step(step=1), name), name


@pytest.mark.parametrize(
    "line, step",
    [
        (b'{"type":"step","step":5.0,"loss":0.5}', Step(step=5, loss=0.5)),
        (b'{"type":"step","step":5,"epoch":0.25,"batch":"x","lr":0.5}', Step(step=5, lr=0.5)),
        (b'{"type":"step","step":5.5,"loss":0.5}', None),
        (b'{"type":"step","step":9007199254740993,"loss":0.5}', None),
        (b'{"type":"step","step":"5"}', None),
        (b'{"type":"eval","step":5.0}', None),
        (b'{"type":"step","step":5.0,"loss":', None),
    ],
)
def test_what_it_reads_every_reader_reads(line: bytes, step: Step | None) -> None:
    assert step_of(line) == step
    decoder = run_decoder()
    assert decoder.decode(line + b"\n") == ([] if step is None else [step])
    assert decoder.bad == (step is None)


@pytest.mark.parametrize("seed", range(200 if FULL else 10))
def test_a_log_in_parts_of_some_layout_is_the_same_in_pieces_as_line_by_line(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "PARSED_AT_ONCE", 2000)
    monkeypatch.setattr(parsing, "RESTING", int(seed % 3))
    draw = np.random.default_rng(seed)
    lines, step = [encode(Run(time=1.0, run_id="x"))], 0
    for _ in range(6):
        fields: dict[str, Any] = {
            name: value for name, value in (("loss", 0.5), ("grad_norm", 1.5), ("lr", 0.25)) if draw.random() < 0.8
        }
        for _ in range(int(draw.integers(1, 60))):
            step += 1
            lines.append(encode(Step(time=float(step), step=step, epoch=1, **fields)))
            if draw.random() < 0.02:
                lines.append(encode(Eval(time=1.0, step=step, auroc=0.5)))
            if draw.random() < 0.02:
                lines.append(b'{"type":"step","step":%d.0,"epoch":"x","loss":"nan"}\n' % step)
            if draw.random() < 0.01:
                lines.append(b"no record\n")
    log = tmp_path / "run.jsonl"
    log.write_bytes(b"".join(lines))
    decoder = run_decoder()
    known = list(items(decoder.decode(log.read_bytes())))
    fd = os.open(log, os.O_RDONLY)
    pieces = list(parsing.pieces(fd, 0, os.fstat(fd).st_size, two=False))
    os.close(fd)
    assert sum(piece.bad for piece in pieces) == decoder.bad
    assert sum(piece.records for piece in pieces) == len(decoder.decode(log.read_bytes()))
    expected = [item for item in known if isinstance(item, StepBlock)]
    found = [item for piece in pieces for item in piece.items if isinstance(item, StepBlock)]
    for name in COLUMNS:
        assert b"".join(getattr(b, name).tobytes() for b in found) == b"".join(
            getattr(b, name).tobytes() for b in expected
        )
    assert [i for p in pieces for i in p.items if isinstance(i, Eval)] == [i for i in known if isinstance(i, Eval)]
    assert history_of(tmp_path).length == len({s for b in expected for s in b.step.tolist()})
