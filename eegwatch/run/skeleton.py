"""A sample of a long log: step records found by seeking, so that a curve is shown before the file is read.

Lines of one log are of nearly one length, so equally spaced offsets give nearly equally spaced steps: ten million
records take as long as fifty thousand.
"""

from __future__ import annotations

import os
from pathlib import Path

from eegwatch.run.history import History
from eegwatch.run.items import ItemReader
from eegwatch.run.log import run_decoder
from eegwatch.run.records import Run, RunRecord, Step

WORTH_IT_BYTES = 4 << 20  # a shorter log is read whole in a few frames
PROBES, PROBE_BYTES, HEAD_BYTES = 1200, 1024, 1 << 16


def skeleton(path: Path) -> History | None:
    """The log's head and single steps spread over the newest attempt's line; None for a short or unreadable log."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size < WORTH_IT_BYTES:
            return None
        decoder = run_decoder()
        head = os.pread(fd, HEAD_BYTES, 0)
        records: list[RunRecord] = decoder.decode(head[: head.rfind(b"\n") + 1])
        probed: list[RunRecord] = []
        for i in range(1, PROBES + 1):
            piece = os.pread(fd, PROBE_BYTES, min(size * i // PROBES, size - PROBE_BYTES))
            begin, end = piece.find(b"\n") + 1, piece.rfind(b"\n") + 1
            probed += decoder.decode(piece[begin:end]) if end > begin else []
    finally:
        os.close(fd)
    runs = [r for r in [*records, *probed] if isinstance(r, Run)]
    steps = [r for r in [*records, *probed] if isinstance(r, Step)]
    if not runs or not steps:
        return None
    history = History()
    for item in ItemReader().items([runs[0], *_live(steps)]):
        history.append(item)
    return history


def _live(steps: list[Step]) -> list[Step]:
    """The steps, in file order, that no later attempt repeated."""
    kept: list[Step] = []
    lowest = float("inf")
    for step in reversed(steps):
        if step.step < lowest:
            kept.append(step)
            lowest = step.step
    return kept[::-1]
