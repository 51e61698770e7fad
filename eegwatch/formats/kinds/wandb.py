"""A run of Weights & Biases as its client writes it: run-ID.wandb, records in LevelDB's log format.

wandb itself decodes the records. Sources: wandb/core/internal/transactionlog, LevelDB's doc/log_format.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.csv_json import flat
from eegwatch.formats.kinds.metric_series import SeriesStore, Value
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.numerals import json_value
from eegwatch.run.follow import FormatError

WANDB = b":W&B"
BLOCK, HEADER = 32768, 7  # of LevelDB's log format


class WandbRun(SeriesStore):
    """A run's .wandb file: records of wandb's protocol, which wandb's own classes decode."""

    def __init__(self, path: Path) -> None:
        """Raises FormatError where wandb is not installed."""
        try:
            from wandb.proto.wandb_internal_pb2 import Record
        except ImportError:
            raise FormatError(f"{path}: .wandb files are read by wandb: pip install wandb") from None
        self._record = Record
        super().__init__(path, path.stem)

    def _begin(self) -> None:
        super()._begin()
        self._seen = 0

    def look(self) -> tuple[object, float, bool]:
        """As SeriesStore."""
        status = os.stat(self.path)
        return (status.st_size, status.st_mtime_ns), status.st_mtime, False

    def new(self) -> Iterator[Value]:
        """As SeriesStore."""
        count = 0
        for data in transactions(self.path.read_bytes()):
            count += 1
            if count <= self._seen:
                continue
            record = self._record()
            try:
                record.ParseFromString(data)
            except Exception as error:  # protobuf's own DecodeError, which has no public name
                if type(error).__name__ != "DecodeError":
                    raise
                self.bad += 1
                continue
            if record.WhichOneof("record_type") == "history":
                yield from self._history(record.history)
        self._seen = max(self._seen, count)

    @staticmethod
    def _history(history: Any) -> Iterator[Value]:
        values: dict[str, Any] = {}
        for item in history.item:
            try:
                values[item.key or "/".join(item.nested_key)] = json_value(item.value_json)
            except ValueError:
                continue
        step = values.pop("_step", history.step.num)
        when = values.pop("_timestamp", 0.0)
        values.pop("_runtime", None)
        if isinstance(step, int):
            for name, value, _ in flat(values):
                yield name, step, float(when) if isinstance(when, int | float) else 0.0, value


def transactions(data: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format: blocks of 32 kB, each record's parts behind crc (4), length (2) and type (1).

    Types: 1 whole, 2 first, 3 middle, 4 last. The file begins with 7 bytes of W&B's own. A torn end is left out.
    """
    at = HEADER
    parts: list[bytes] = []
    while at + HEADER <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + HEADER : at + HEADER + length]
        if len(part) < length or kind not in (1, 2, 3, 4):
            return
        at += HEADER + length
        parts = [part] if kind in (1, 2) else [*parts, part]
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def _wandb(head: FileHead) -> bool:
    return head.name.endswith(".wandb") or head.data[:4] == WANDB


def _follow_wandb(path: Path, patterns: Sequence[object]) -> WandbRun:
    return WandbRun(path)


KIND = LogKind("W&B run", "*.wandb", 4, _wandb, _follow_wandb)
