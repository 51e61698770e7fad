"""Logs of the other ranks of a job beside the run's log: run.rank<N>.jsonl, with records of the watcher only."""

from __future__ import annotations

import time
from pathlib import Path

from eegwatch.run.log import Decoder, Tail, run_decoder
from eegwatch.run.records import RunRecord, Watch

SEARCH_EVERY_S = 1.0
MOST_BYTES = 1 << 20


def rank_log(folder: Path, rank: int) -> Path:
    """The log file of the watcher's records of rank N > 0."""
    return folder / f"run.rank{rank}.jsonl"


class RankLogs:
    """Follows the files of all other ranks of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tails: dict[Path, tuple[Tail, Decoder[RunRecord]]] = {}
        self._searched_at = float("-inf")

    def read(self) -> list[Watch]:
        """New records of the watchers of the other ranks, in the order of each file."""
        now = time.monotonic()
        if now - self._searched_at >= SEARCH_EVERY_S:
            self._searched_at = now
            for path in sorted(self._folder.glob("run.rank*.jsonl")):
                if path not in self._tails:
                    self._tails[path] = Tail(path), run_decoder()
        watches: list[Watch] = []
        for tail, decoder in self._tails.values():
            try:
                while data := tail.read(MOST_BYTES).data:
                    watches += [record for record in decoder.decode(data) if isinstance(record, Watch)]
            except OSError:  # it cannot be read, or not any more: the run's own log is what counts
                continue
        return watches

    def restart(self) -> None:
        """Read all of them from their beginnings again."""
        self.close()
        self._tails, self._searched_at = {}, float("-inf")

    def close(self) -> None:
        for tail, _ in self._tails.values():
            tail.close()
