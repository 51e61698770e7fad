"""Windows of a corpus, built from the rows that a store keeps of each recording: made once, cached, packed, verified.

A store's folder is named by a hash of all that its rows depend on, a shard by its file's path, size and time. What a
row is (features, band powers, samples) each kind of store says for itself.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eegpt_daemon.data.corpus import CorpusError, Entry, Rejected
from eegpt_daemon.data.reader_processes import blocks
from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.shards import Damaged, Pack, Rows, ShardStore, ShardWriter
from eegpt_daemon.model.encoder import PATCH
from eegwatch.run.config import Config
from eegwatch.run.folder import write_whole

VERSION = 2  # of the way from file to rows: raise it when that changes, and old caches are left alone
Report = Callable[[str, int, int], None]
CHANGED = "changed while it was read: the next preparation reads it again"


def _identity(path: Path) -> str:
    """A hash of a file's path, size and modification time; for a missing file, of its path alone."""
    try:
        status = path.stat()
        name = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError in Python 3.11
        name = f"{path}|gone"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _row(*cells: str) -> str:
    """A line of recordings.tsv: a tab or a newline in a file's name is written as an escape."""
    escapes = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
    return "\t".join("".join(escapes.get(character, character) for character in cell) for cell in cells)


@dataclass
class Windows:
    """Windows of one split. `rows`: where each begins in the pack; `y` labels; `recording` index into `names`.

    `subjects`: whose each recording is, beside `names`.
    """

    pack: Pack
    rows: NDArray[np.int64]
    y: NDArray[np.int64]
    recording: NDArray[np.int32]
    names: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def x(self) -> Rows:
        """All rows of the split, for tests and small corpora."""
        return self.pack.rows[self.rows]

    def hash(self) -> str:
        """A hash of everything that a resume requires unchanged: values, windows per recording, labels and names."""
        digest = hashlib.sha256("\n".join([self.pack.content, *self.names]).encode("utf-8", "surrogateescape"))
        digest.update(self.recording.tobytes() + self.y.tobytes())
        return digest.hexdigest()[:16]


class RowBuilder(Protocol):
    """Turns one recording's blocks into rows. `problem`: why what it saw so far must not be used."""

    problem: str | None

    def feed(self, block: NDArray[np.float32]) -> Rows: ...


class WindowStore(ABC):
    """Windows of a corpus under one configuration; computes what is not there yet. See the two kinds below."""

    store: ShardStore
    grain = PATCH  # samples that windows begin at multiples of

    def __init__(self, config: Config) -> None:
        """Raises CorpusError if the window length is not a multiple of the patch length."""
        self.config, data = config, config.data
        self.rate = data.sampling_rate
        self.window = round(data.window_duration * self.rate)
        self.stride = round(data.window_stride * self.rate)
        if self.window % self.grain or self.stride % self.grain:
            raise CorpusError(
                f"data.window_duration and window_stride must be whole patches of {self.grain} samples at {self.rate} "
                f"Hz ({self.grain / self.rate:g} s): {data.window_duration:g} and {data.window_stride:g} s are not"
            )
        if not self.window or not self.stride:
            raise CorpusError("data.window_duration and window_stride must be a sample at least")
        self._opened = False
        self._named: dict[Path, str] = {}

    @property
    def folder(self) -> Path:
        return self.store.folder

    @abstractmethod
    def row_of(self) -> RowBuilder:
        """A builder that turns the next recording's blocks into rows."""

    @abstractmethod
    def starts(self, rows: int) -> NDArray[np.int64]:
        """First row of each window in a shard with this number of rows."""

    def windows_in(self, samples: int) -> int:
        """Number of windows of a recording with this number of samples."""
        grains = samples // self.grain - self.window // self.grain
        return max(0, grains // (self.stride // self.grain) + 1)

    @abstractmethod
    def rows_in(self, samples: int) -> int:
        """Number of cache rows of a recording with this number of samples."""

    def _signal_settings(self) -> dict[str, Any]:
        data = self.config.data
        return {
            "channels": wanted_channels(data),
            "missing": data.missing,
            "reference": data.reference,
            "scaling": data.scaling,
            "rate": self.rate,
            "min_duration": data.min_duration,
            "dtype": "float16",
            "versions": {"rows": VERSION} | {name: importlib.metadata.version(name) for name in ("mne", "scipy")},
        }

    def open(self) -> None:
        """Make or open the cache folder. Raises CorpusError where that cannot be."""
        if self._opened:
            return
        try:
            self.store.open()
        except OSError as error:
            where = error.filename or self.folder
            raise CorpusError(f"data.cache_dir: {where}: {error.strerror or error}; write one that you own") from None
        self._opened = True

    def shard(self, entry: Entry) -> Path:
        return self.store.path(self.shard_name(entry))

    def shard_name(self, entry: Entry) -> str:
        """The name of a recording's shard, by path, size and time of the file when it was first asked for."""
        known = self._named.get(entry.path)
        if known is None:
            known = self._named[entry.path] = _identity(entry.path)
        return known

    def _changed(self, entry: Entry) -> bool:
        """Whether the file has changed since its shard was named."""
        return _identity(entry.path) != self.shard_name(entry)

    def known_rows(self, entry: Entry) -> int | None:
        """Rows of a recording that is in the cache (0 for one that cannot be used), or None."""
        shard = self.store.get(self.shard_name(entry))
        return None if shard is None else shard.rows

    def prepare(
        self,
        entries: list[Entry],
        report: Callable[[int, int], None],
        note: Callable[[str], None],
        left_out: list[Rejected] | None = None,
    ) -> list[Rejected]:
        """Compute every missing shard; `report(done, total)` as it goes on, `note` for each repair.

        Returns the files that cannot be used, `left_out` (already known to be so) among them. Raises CorpusError when
        more than `data.max_rejected` of all cannot.
        """
        self.open()
        names = {entry.relative: self.shard_name(entry) for entry in entries}
        missing = [entry for entry in entries if self.store.get(names[entry.relative]) is None]
        if len(missing) == len(entries):
            for other in self.store.like_this():
                note(f"a new cache is begun: {other}")
        rejected = list(left_out or [])
        for fault in rejected:
            note(f"{fault.alias or fault.relative}: skipped: {fault.reason}")
        for entry in entries:
            shard = self.store.get(names[entry.relative])
            if shard is not None and shard.reason is not None:
                rejected.append(self._reject(entry, shard.reason, note))
        files = len(entries) + len(left_out or [])
        done = len(entries) - len(missing)
        report(done, len(entries))
        for entry, reason, lasting in self._compute(
            missing, names, note, lambda ended: report(done + ended, len(entries))
        ):
            if lasting:
                self.store.refuse(names[entry.relative], reason)
            rejected.append(self._reject(entry, reason, note))
            self._refuse_if_too_many(rejected, files)
        self._write_table(entries, names, rejected)
        self._refuse_if_too_many(rejected, files)
        return rejected

    def _reject(self, entry: Entry, reason: str, note: Callable[[str], None]) -> Rejected:
        note(f"{entry.alias or entry.relative}: skipped: {reason}")
        return Rejected(entry.relative, reason, entry.alias)

    def _refuse_if_too_many(self, rejected: list[Rejected], files: int) -> None:
        if len(rejected) > self.config.data.max_rejected * files:
            last = rejected[-1]
            raise CorpusError(
                f"{len(rejected)} of {files} recordings cannot be used, more than data.max_rejected "
                f"({self.config.data.max_rejected:.0%}); the last: {last.alias or last.relative}: {last.reason}"
            )

    def _compute(
        self, entries: list[Entry], names: dict[str, str], note: Callable[[str], None], ended: Callable[[int], None]
    ) -> Iterator[tuple[Entry, str, bool]]:
        """Stream recordings into shards; yields (entry, reason, whether it lasts) of those that cannot be used."""
        writing: dict[int, tuple[ShardWriter, RowBuilder]] = {}
        count = 0
        try:
            for part in blocks(entries, self.config.data) if entries else ():
                entry, block = entries[part.number], part.block
                if block is not None:
                    if part.number not in writing:
                        writing[part.number] = self.store.writer(names[entry.relative]), self.row_of()
                    writer, rower = writing[part.number]
                    writer.write(rower.feed(block))
                    ended(count)
                    continue
                count += 1
                reason, lasting = part.reason, part.lasting
                if self._changed(entry):
                    reason, lasting = CHANGED, False
                if part.number in writing:
                    writer, rower = writing.pop(part.number)
                    reason = reason or rower.problem
                    if reason is None:
                        writer.finish(part.repairs, part.signal)
                    else:
                        writer.abandon()
                for repair in part.repairs if reason is None else ():
                    note(f"{entry.alias or entry.relative}: {repair}")
                if reason is not None:
                    yield entry, reason, lasting
                ended(count)
        finally:
            for writer, _ in writing.values():
                writer.abandon()

    def _write_table(self, entries: list[Entry], names: dict[str, str], rejected: list[Rejected]) -> None:
        """recordings.tsv: which file each name in the log is, and what became of it. Stays with the data."""
        reasons = {r.relative: r.reason for r in rejected}
        lines = ["called\tfile\tsplit\tlabel\trows\tstatus\tremarks"]
        for e in entries:
            reason, shard = reasons.pop(e.relative, None), self.store.index.get(names[e.relative])
            repairs = shard.repairs if shard is not None else []
            status = "rejected" if reason else "repaired" if repairs else "ok"
            rows = shard.rows if shard is not None and not reason else 0
            label = self.config.data.labels[e.label]
            lines.append(_row(e.alias, e.relative, e.split, label, str(rows), status, reason or "; ".join(repairs)))
        left_out = [r for r in rejected if r.relative in reasons]
        lines += [_row(r.alias, r.relative, "", "", "0", "rejected", r.reason) for r in left_out]
        write_whole(self.folder / "recordings.tsv", ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))

    def pack(self, entries: list[Entry], rejected: list[Rejected], report: Report, note: Callable[[str], None]) -> Pack:
        """One verified memory map of all usable recordings. A damaged shard is made again, once."""
        skipped = {r.relative for r in rejected}
        usable = [e for e in entries if e.relative not in skipped]
        names = {e.relative: self.shard_name(e) for e in usable}

        def packed() -> Pack:
            return self.store.pack(list(names.values()), lambda done, total: report("verifying the cache", done, total))

        try:
            return packed()
        except Damaged as damage:
            note(f"{len(damage.names)} shard(s) of {self.folder} are damaged: computed again")
            again = [e for e in usable if names[e.relative] in damage.names]
            failed = list(self._compute(again, names, note, lambda ended: report("computing again", ended, len(again))))
            if failed:
                raise CorpusError(f"{failed[0][0].alias}: {failed[0][1]}, though it could be read before") from None
            try:
                return packed()
            except Damaged:
                raise CorpusError(f"{self.folder} does not keep what is written there: check the disk") from None

    def gather(self, pack: Pack, entries: list[Entry], split: str, rejected: list[Rejected]) -> Windows:
        """The windows of a split, in the order of the entries. Raises CorpusError if it has none."""
        skipped = {r.relative for r in rejected}
        usable = [e for e in entries if e.relative not in skipped]
        rows, ys, recordings, names, subjects = [], [], [], list[str](), list[str]()
        for begin, count, entry in zip(pack.begins, pack.counts, usable, strict=False):
            if entry.split != split:
                continue
            starts = begin + self.starts(count)
            rows.append(starts)
            ys.append(np.full(len(starts), entry.label, np.int64))
            recordings.append(np.full(len(starts), len(names), np.int32))
            names.append(entry.relative)
            subjects.append(entry.subject)
        if not rows:
            raise CorpusError(f"no usable recording in the {split} split")
        return Windows(pack, np.concatenate(rows), np.concatenate(ys), np.concatenate(recordings), names, subjects)


class WindowCutter:
    """One recording cut into windows as its blocks come, each window made a row by `rows_of`.

    `rows_of`: (windows, channels, samples) -> (windows, width).
    """

    def __init__(self, store: WindowStore, rows_of: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> None:
        self._store, self._rows_of = store, rows_of
        self._left: NDArray[np.float32] | None = None
        self._skip = 0  # samples before the next window begins, where windows lie further apart than they are wide
        self._finite = True
        self.problem: str | None = f"shorter than one window of {store.config.data.window_duration:g} s"

    def feed(self, block: NDArray[np.float32]) -> Rows:
        """(channels, samples) -> (windows completed by these samples, width)."""
        signal = block if self._left is None else np.concatenate([self._left, block], axis=1)
        wide, apart = self._store.window, self._store.stride
        skipped = min(self._skip, signal.shape[1])
        signal, self._skip = signal[:, skipped:], self._skip - skipped
        if signal.shape[1] < wide:
            self._left = signal
            return np.zeros((0, self._store.store.width), np.float16)
        view = np.lib.stride_tricks.sliding_window_view(signal, wide, axis=1)[:, ::apart].swapaxes(0, 1)
        self._left, self._skip = signal[:, len(view) * apart :], max(0, len(view) * apart - signal.shape[1])
        with np.errstate(over="ignore"):
            rows = self._rows_of(view).astype(np.float16)  # checked as it is kept: 65,504 is the largest that fits
        self._finite &= bool(np.isfinite(rows).all())
        self.problem = None if self._finite else "its features are not finite, or too large for float16"
        return rows
