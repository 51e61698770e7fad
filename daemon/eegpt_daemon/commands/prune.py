"""`eegpt-daemon prune`: old runs, and what they left in caches; listed first, removed with --yes."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eegpt_daemon.errors import FAILED, OK
from eegwatch.run import config as configuration
from eegwatch.run.config import ConfigError
from eegwatch.run.control import lock_holder
from eegwatch.run.folder import CONFIG, runs
from eegwatch.wording import duration, plain, size

DAY_S = 86400.0
RUN_LOCK = "trainer.lock"
MANIFEST = "manifest.json"
_CACHE = re.compile(r"[0-9a-f]{16}")


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=_days, default=30.0, metavar="DAYS", help="unused for so long (default: 30)"
    )
    parser.add_argument("--keep", type=int, default=10, metavar="N", help="the newest N runs stay (default: 10)")
    parser.add_argument(
        "--cache", type=Path, action="append", default=[], metavar="DIR", help="a further data.cache_dir"
    )
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """List what can be removed; with --yes remove it."""
    found = candidates(logs, older_than_days=arguments.older_than, keep=arguments.keep, caches=arguments.cache)
    if arguments.json:
        print(as_json(found))
    else:
        for candidate in found:
            print(plain(candidate.line()))
    total = size(sum(c.size for c in found))
    if not arguments.yes:
        if not arguments.json:
            print(f"{len(found)} in all, {total}; --yes removes them" if found else "nothing to remove")
        return OK
    failed = 0
    for candidate in found:
        try:
            remove(candidate)
        except OSError as error:
            failed += 1
            print(f"eegpt-daemon: {plain(str(candidate.path))}: {error.strerror}", file=sys.stderr)
    if not arguments.json:
        print(f"removed {len(found) - failed}, {total}" if found else "nothing to remove")
    return FAILED if failed else OK


@dataclass(frozen=True)
class Candidate:
    """Something that can be removed: a folder or file, its bytes, how long it was not used, and what it is."""

    path: Path
    size: int
    age_s: float
    what: str

    def line(self) -> str:
        return f"{size(self.size):>10}  unused for {duration(self.age_s)}  {self.what}  {self.path}"


def candidates(logs: Path, *, older_than_days: float, keep: int, caches: list[Path]) -> list[Candidate]:
    """Runs, caches and packs unused for so many days, except the newest `keep` runs. Raises OSError."""
    now = time.time()
    listed: list[Candidate] = []
    present = runs(logs)
    for folder in present[: max(0, len(present) - max(keep, 1))]:
        if lock_holder(folder / RUN_LOCK) is None:
            listed.append(_candidate(folder, now, "run"))
    for cache in sorted({path.resolve() for path in [*caches, *caches_of(present)]}):
        listed += _in_cache(cache, now, older_than_days * DAY_S)
    return [c for c in listed if c.age_s > older_than_days * DAY_S]


def caches_of(folders: list[Path]) -> list[Path]:
    """The cache folders that the configurations of runs name."""
    named: set[Path] = set()
    for folder in folders:
        try:
            named.add(Path(configuration.load(folder / CONFIG, expand=False).data.cache_dir))
        except ConfigError:
            continue  # a run of a script of one's own has none, and one that cannot be read names nothing
    return [path for path in named if path.is_dir()]


def _in_cache(cache: Path, now: float, older_than_s: float) -> list[Candidate]:
    """For each store: the whole store if nothing in it was used for so long, else each pack but the newest."""
    candidates: list[Candidate] = []
    for store in sorted(cache.iterdir()) if cache.is_dir() else []:
        if not _CACHE.fullmatch(store.name) or store.is_symlink() or not (store / MANIFEST).is_file():
            continue  # not one of ours
        packs = sorted(store.glob("pack-*.npy"), key=lambda path: _used(path.stat()))
        older = [_candidate(pack, now, "pack of an earlier corpus") for pack in packs[:-1]]
        whole = _candidate(store, now, "features")
        candidates += [whole] if whole.age_s > older_than_s else older
    return candidates


def _candidate(path: Path, now: float, what: str) -> Candidate:
    total, used = 0, 0.0
    files = [path] if path.is_file() else [p for p in path.rglob("*") if not p.is_symlink()]
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            continue  # removed meanwhile
        if file.is_file():
            total += status.st_blocks * 512
            used = max(used, _used(status) if file.suffix == ".npy" else status.st_mtime)  # to list is to read, too
    return Candidate(path, total, now - (used or path.stat().st_mtime), what)


def _used(status: os.stat_result) -> float:
    """When a file was last written; or read, as far as the file system notes that."""
    return max(status.st_mtime, status.st_atime)


def remove(candidate: Candidate) -> None:
    """Raises OSError."""
    if candidate.path.is_dir() and not candidate.path.is_symlink():
        shutil.rmtree(candidate.path)
    else:
        candidate.path.unlink(missing_ok=True)


def as_json(candidates: list[Candidate]) -> str:
    return msgspec.json.encode(
        [{"path": str(c.path), "bytes": c.size, "unused_s": c.age_s, "what": c.what} for c in candidates]
    ).decode()


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return value
