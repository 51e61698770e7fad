"""Step records of one layout as columns, by way of msgpack: a tenth less time than attribute by attribute.

A chunk of a log whose step records all name the same fields, with a number in each or null in each, is decoded into
`UniformStep`, whose fields are floats. msgpack writes a float as 9 bytes, so that each record has the same length, and
numpy reads a column as every n-th 8 bytes. Each record's head and each number's marker are compared; any other chunk
raises NotUniformError, and is read attribute by attribute (`run.columns`) to the same columns.
"""

from __future__ import annotations

from typing import Any, Union, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import NOT_LOGGED, StepBlock
from eegwatch.run.records import Int32, Number, RunRecord, Step

UNSET = msgspec.UNSET
FLOAT, NIL, SHORT_TEXT = 0xCB, 0xC0, 0xA0  # msgpack's markers; a text of up to 31 bytes has its length added
WHOLE = float(1 << 53)  # below it every whole number is a float64: beyond, the general way decides
ARRAY_HEADS = (1, 3, 5)  # bytes before the records, by their count


class NotUniformError(Exception):
    """Records that do not all have the same layout."""


class UniformStep(msgspec.Struct, kw_only=True, tag_field="type", tag="step", gc=False):
    """A `Step` whose step is a float; without epoch and batch, which no column holds."""

    time: float = 0.0
    step: float
    lr: Number = None
    position: float | None = None
    loss: Number | msgspec.UnsetType = UNSET
    grad_norm: Number = None
    samples_per_s: Number = None
    skipped: Int32 | msgspec.UnsetType = UNSET
    lrs: list[Number] | msgspec.UnsetType = UNSET
    metrics: dict[str, Number] | msgspec.UnsetType = UNSET

    def as_step(self) -> Step | None:
        """The record itself; None where its step is not a whole number."""
        if not (abs(self.step) < WHOLE and self.step.is_integer()):
            return None
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return Step(**fields | {"step": int(self.step)})


OTHERS = tuple(kind for kind in get_args(RunRecord) if kind is not Step)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.json.Decoder[UniformStep] = msgspec.json.Decoder(UniformStep)


def uniform_decoder() -> msgspec.json.Decoder[Any]:
    """A decoder for run.jsonl that gives UniformSteps."""
    return msgspec.json.Decoder(Union[(UniformStep, *OTHERS)])


def step_of(line: bytes) -> Step | None:
    """The step record in a line whose epoch or batch is not an integer, or whose step is written as 5.0; else None.

    `uniform_decoder` reads such a line, and every reader shall read the same.
    """
    try:
        return _decoder.decode(line).as_step()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Layout:
    """Where the fields of a record lie in its msgpack."""

    def __init__(self, record: UniformStep) -> None:
        """Raises NotUniformError for a record with other things than numbers."""
        one = _encoder.encode(record)
        at = one.index(bytes([SHORT_TEXT + 4]) + b"time")
        self.head = int.from_bytes(one[:8], "little")  # how many fields, and the first letters of the tag's name
        markers: list[int] = []
        numbers: dict[str, int] = {}
        self.missing = {name for name in UniformStep.__struct_fields__ if getattr(record, name) is UNSET}
        for name in UniformStep.__struct_fields__:
            if name in self.missing:
                continue
            at += 1 + len(name)
            markers.append(at)
            if one[at] == FLOAT:
                numbers[name] = at + 1
                at += 8
            elif one[at] != NIL:
                raise NotUniformError
            at += 1
        if at != len(one):
            raise NotUniformError
        self.size = at
        self._at = np.array(markers)
        self._markers = np.frombuffer(one, np.uint8)[self._at]
        self.numbers = np.dtype(
            {"names": list(numbers), "formats": [">f8"] * len(numbers), "offsets": list(numbers.values()),
             "itemsize": self.size}
        )  # fmt: skip

    def rows(self, data: bytes, count: int) -> NDArray[Any]:
        """The numbers of `count` records. Raises NotUniformError where one has another layout."""
        head = len(data) - count * self.size
        if head not in ARRAY_HEADS:
            raise NotUniformError
        raw = np.frombuffer(data, np.uint8, offset=head).reshape(count, self.size)
        heads = np.ndarray(count, "<u8", data, head, (self.size,))
        if not ((heads == self.head).all() and (raw[:, self._at] == self._markers).all()):
            raise NotUniformError
        return np.frombuffer(data, self.numbers, offset=head)


def block_of_uniform(steps: list[UniformStep]) -> StepBlock:
    """Step records of one attempt, in the order of the log, as columns. Raises NotUniformError."""
    layout, count = _Layout(steps[0]), len(steps)
    rows = layout.rows(_encoder.encode(steps), count)
    numbered = rows.dtype.names or ()

    def column(name: str, kind: type[np.floating[Any]]) -> NDArray[Any]:
        return rows[name].astype(kind) if name in numbered else np.full(count, np.nan, kind)

    step = rows["step"].astype(np.float64)
    whole = step.astype(np.int64)
    if not ((np.abs(step) < WHOLE) & (whole == step)).all():
        raise NotUniformError
    with np.errstate(over="ignore"):  # beyond float32 a number is infinite there
        block = StepBlock(
            step=whole,
            time=column("time", np.float64),
            lr=column("lr", np.float64),
            position=column("position", np.float64),
            loss=column("loss", np.float32),
            grad_norm=column("grad_norm", np.float32),
            samples_per_s=column("samples_per_s", np.float32),
            skipped=np.zeros(count, np.int32),
        )
    if "loss" in layout.missing:
        block.loss.view(np.uint32)[:] = NOT_LOGGED
    return block
