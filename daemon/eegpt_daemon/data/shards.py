"""Rows kept on disk, recording by recording: float16 `.npy` shards with checksums, packed into one memory map.

A store is a folder named by a hash of all that its rows depend on. `index.jsonl` there gets one line a recording, once
its shard is complete: rows and SHA-256, or why the file cannot be used. Shards are streamed aside and renamed, so a
killed preparation goes on where it was; a shard or a pack that no longer has its checksum is found and made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from eegwatch.run.folder import aside_of, left_behind, write_whole
from eegwatch.run.log import AppendLog, Decoder, read_all
from eegwatch.run.records import Record

INDEX, MANIFEST = "index.jsonl", "manifest.json"
IN_MEMORY_BYTES = 512 << 20  # a smaller pack is read into memory; a larger one stays mapped, resident size bounded
DTYPE = np.dtype(np.float16)
COPY_BYTES = 8 << 20
Rows = NDArray[np.float16]


class Shard(Record, frozen=True, kw_only=True, tag="shard"):
    """One recording in the store: `rows` and `sha256` of its values, or `reason` why it has none.

    `signal`: the fingerprint of what was read (data/signal_fingerprint.py); empty in caches of earlier versions.
    """

    name: str
    rows: int = 0
    sha256: str = ""
    repairs: list[str] = []
    reason: str | None = None
    signal: dict[str, Any] = {}


class Damaged(Exception):
    """Shards whose content is not what the index says: to be made again."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class ShardStore:
    """The shards of one folder. `width`: columns of a row. Raises OSError when the folder cannot be made."""

    def __init__(self, parent: Path, depends_on: dict[str, Any], width: int) -> None:
        self.parent = parent
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        self.folder, self.width = parent / key, width
        self.depends_on = depends_on

    def open(self) -> None:
        """Make the folder and read the index. What a killed writer left aside is removed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            write_whole(manifest, json.dumps(self.depends_on, indent=1).encode())
        for aside in self.folder.glob(".*.tmp"):
            if left_behind(aside):
                aside.unlink(missing_ok=True)
        self._log = AppendLog(self.folder / INDEX)
        self.index = {shard.name: shard for shard in read_all(self.folder / INDEX, Decoder[Shard](Shard))}

    def like_this(self) -> list[str]:
        """Caches beside this one that differ only in library versions: the log names them when a new cache is made."""
        folders = []
        for manifest in self.parent.glob(f"*/{MANIFEST}"):
            other = json.loads(manifest.read_text())
            if other != self.depends_on and other | {"versions": 0} == self.depends_on | {"versions": 0}:
                folders.append(f"{manifest.parent} was made with {other['versions']}")
        return folders

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def get(self, name: str) -> Shard | None:
        """The shard of a recording, or None if it has to be made."""
        shard = self.index.get(name)
        if shard is None or shard.reason is not None:
            return shard
        try:
            size = self.path(name).stat().st_size
        except FileNotFoundError:
            return None
        return (
            shard if size == header_bytes(shard.rows, self.width) + shard.rows * self.width * DTYPE.itemsize else None
        )

    def refuse(self, name: str, reason: str) -> None:
        """Remember that a recording cannot be used."""
        self.add(Shard(name=name, reason=reason))

    def add(self, shard: Shard) -> None:
        self._log.append(shard)
        self.index[shard.name] = shard

    def writer(self, name: str) -> ShardWriter:
        """Begin a shard: it is in the store once `finish` is called."""
        return ShardWriter(self, name)

    # ---- the pack ----

    def pack(self, names: list[str], report: Callable[[int, int], None]) -> Pack:
        """One memory map of the rows of `names`, in order; verified. Raises Damaged for shards to be made again."""
        shards = [self.index[name] for name in names]
        listed = "\n".join(f"{s.name} {s.rows} {s.sha256}" for s in shards)
        content = hashlib.sha256(listed.encode()).hexdigest()[:16]
        path = self.folder / f"pack-{content}.npy"
        if not path.exists() or _wrong(path, self.width, shards, report):
            self._write_pack(path, shards, report)
        return Pack(path, self.width, [s.rows for s in shards], content)

    def _write_pack(self, path: Path, shards: list[Shard], report: Callable[[int, int], None]) -> None:
        aside = aside_of(path)
        damaged: list[str] = []
        try:
            with aside.open("wb") as out:
                out.write(_header(sum(s.rows for s in shards), self.width))
                for done, shard in enumerate(shards, 1):
                    digest = hashlib.sha256()
                    for part in _content(self.path(shard.name)):
                        digest.update(part)
                        out.write(part)
                    if digest.hexdigest() != shard.sha256:
                        damaged.append(shard.name)
                    report(done, len(shards))
                out.flush()
                os.fsync(out.fileno())
            if damaged:
                for name in damaged:
                    self.index.pop(name)
                    self.path(name).unlink(missing_ok=True)
                raise Damaged(damaged)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


class ShardWriter:
    """Streams the rows of one recording aside; `finish` makes them a shard, `abandon` leaves nothing of them."""

    def __init__(self, store: ShardStore, name: str) -> None:
        self._store, self._name = store, name
        self._aside = aside_of(store.path(name))
        self._digest, self._rows = hashlib.sha256(), 0
        self._file = self._aside.open("wb")
        self._file.write(_header(0, store.width))

    def write(self, part: Rows) -> None:
        """(n, width), appended. Raises OSError when the disk is full."""
        data = np.ascontiguousarray(part, DTYPE)
        self._digest.update(data.data)
        self._file.write(data.data)
        self._rows += len(data)

    def finish(self, repairs: list[str], signal: dict[str, Any] | None = None) -> None:
        self._file.seek(0)
        self._file.write(_header(self._rows, self._store.width))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self._store.path(self._name))
        sha256 = self._digest.hexdigest()
        self._store.add(Shard(name=self._name, rows=self._rows, sha256=sha256, repairs=repairs, signal=signal or {}))

    def abandon(self) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)


class Pack:
    """The packed rows: `rows` (n, width) float16, `begins` first row of each recording. Small ones lie in memory.

    A larger one is mapped, for scans; `trim` gives their pages back to the page cache. Single rows are better taken by
    `take`: one fault of the map brings in some 400 kB of neighbours (large folios, measured), a read just its row, so
    that the process's size stays flat.
    """

    def __init__(self, path: Path, width: int, counts: list[int], content: str) -> None:
        self.path, self.width, self.counts, self.content = path, width, counts, content
        self.begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        n = int(self.begins[-1])
        offset = header_bytes(n, width)
        self.nbytes = n * width * DTYPE.itemsize
        self._map: mmap.mmap | None = None
        self._offset = offset
        if self.nbytes <= IN_MEMORY_BYTES:
            self.rows: Rows = np.fromfile(path, DTYPE, offset=offset).reshape(n, width)
        else:
            self._file = path.open("rb")
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)  # nothing is ever written
            self.rows = np.frombuffer(self._map, DTYPE, n * width, offset).reshape(n, width)

    @property
    def mapped(self) -> bool:
        return self._map is not None

    def take(self, starts: NDArray[np.int64], span: int = 1) -> Rows:
        """(n, span, width): `span` rows from each start on, read from the file of a mapped pack. Raises OSError."""
        out = np.empty((len(starts), span, self.width), DTYPE)
        parts, row = out.data.cast("B"), self.width * DTYPE.itemsize
        size, file = span * row, self._file.fileno()
        for i, start in enumerate(starts.tolist()):
            if os.preadv(file, [parts[i * size : (i + 1) * size]], self._offset + start * row) < size:
                raise OSError(f"{self.path} became shorter while it was in use")
        return out

    def __reduce__(self) -> tuple[type[Pack], tuple[Path, int, list[int], str]]:
        """Another process opens the file itself."""
        return Pack, (self.path, self.width, self.counts, self.content)

    def trim(self) -> None:
        """Give resident pages of the map back to the page cache."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _header(rows: int, width: int) -> bytes:
    """A `.npy` header, of one length for any number of rows (numpy leaves room for it to grow)."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(
        buffer, {"descr": npy.dtype_to_descr(DTYPE), "fortran_order": False, "shape": (rows, width)}
    )
    return buffer.getvalue()


def header_bytes(rows: int, width: int) -> int:
    return len(_header(rows, width))


def _content(path: Path) -> Iterator[bytes]:
    """The values of a `.npy` file, without its header, in parts. A file cut short or gone yields what there is."""
    try:
        with path.open("rb") as file:
            npy.read_magic(file)
            npy.read_array_header_1_0(file)
            while part := file.read(COPY_BYTES):
                yield part
    except (OSError, ValueError):
        return


def _wrong(path: Path, width: int, shards: list[Shard], report: Callable[[int, int], None]) -> bool:
    """Whether a pack differs from the checksums of its recordings. Reads all of it, which also fills the page cache."""
    with path.open("rb") as file:
        file.seek(header_bytes(sum(s.rows for s in shards), width))
        for done, shard in enumerate(shards, 1):
            digest, left = hashlib.sha256(), shard.rows * width * DTYPE.itemsize
            while left and (part := file.read(min(left, COPY_BYTES))):
                digest.update(part)
                left -= len(part)
            if digest.hexdigest() != shard.sha256:
                return True
            report(done, len(shards))
        return bool(file.read(1))
