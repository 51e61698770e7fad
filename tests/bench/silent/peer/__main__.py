"""TrainCheck beside eegwatch: `python -m tests.bench.silent.peer --traincheck VENV/bin/python [--set first] [--case NAME]`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.bench.silent.case import Case, cases
from tests.bench.silent.peer.commands import LIMIT, TrainCheck
from tests.bench.silent.peer.compare import Record, compare_error, compare_healthy, learn
from tests.bench.silent.peer.sample import SETS, draw
from tests.bench.silent.peer.table import markdown

BEFORE_THE_POOL = 6  # errors: learning the pool takes about as long as three of them


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.silent.peer", description=__doc__)
    parser.add_argument("--traincheck", metavar="PYTHON", type=Path, help="the interpreter with TrainCheck installed")
    parser.add_argument("--set", dest="part", choices=SETS, help="cases of this set alone")
    parser.add_argument("--case", metavar="NAME", action="append", help="these cases in place of the drawn ones")
    parser.add_argument("--errors", type=int, default=40)
    parser.add_argument("--healthy", type=int, default=20)
    parser.add_argument("--pool", type=int, default=6, help="trainings that the invariants for healthy ones come from")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of one command of TrainCheck")
    parser.add_argument("--minutes", type=float, default=1e6, help="no further case is begun after so long")
    parser.add_argument("--results", type=Path, default=Path("traincheck.jsonl"), help="records; those in it are kept")
    parser.add_argument("--markdown", action="store_true", help="the tables of the page, from the records alone")
    arguments = parser.parse_args()
    sample = draw(cases(arguments.part), arguments.errors, arguments.healthy, arguments.pool)
    if arguments.markdown:
        print(markdown(kept(arguments.results), sample))
        return
    if arguments.traincheck is None:
        parser.error("--traincheck PYTHON is needed: python -m venv V && V/bin/pip install traincheck==0.2.0")
    peer = TrainCheck(arguments.traincheck.absolute(), arguments.limit)
    print(f"traincheck, torch, pandas: {peer.version()}", file=sys.stderr)
    chosen = [*sample.errors, *sample.healthy]
    if arguments.case:
        chosen = [case for case in cases(arguments.part) if case.name in arguments.case]
        if unknown := set(arguments.case) - {case.name for case in chosen}:
            parser.error(f"no case is called {', '.join(sorted(unknown))}")
        if apart := sorted(set(arguments.case) & set(sample.apart)):
            parser.error(f"{apart[0]} is left out: {sample.apart[apart[0]]}")
    done = {record["name"] for record in kept(arguments.results)}
    todo = [case for case in chosen if case.name not in done]
    with (
        tempfile.TemporaryDirectory(prefix="traincheck-") as folder,
        ThreadPoolExecutor(arguments.processes) as threads,
    ):
        until = time.monotonic() + 60 * arguments.minutes
        pool = None
        if any(not case.is_error for case in todo):
            pool = threads.submit(_learned, sample.pool, peer, Path(folder) / "pool", arguments.results)
        play = partial(_play, peer=peer, root=Path(folder), pool=pool, until=until, results=arguments.results)
        list(threads.map(play, in_turn(todo)))
    print(markdown(kept(arguments.results), sample))


def in_turn(todo: list[Case]) -> list[Case]:
    """Two errors, then a healthy training: a run that is stopped has played some of both. The pool is learnt meanwhile."""
    wrong, well = [case for case in todo if case.is_error], [case for case in todo if not case.is_error]
    order = wrong[:BEFORE_THE_POOL]
    wrong = wrong[BEFORE_THE_POOL:]
    while wrong or well:
        order += [*wrong[:2], *well[:1]]
        wrong, well = wrong[2:], well[1:]
    return order


def kept(results: Path) -> list[Record]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def keep(results: Path, record: Record) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _learned(pool: tuple[Case, ...], peer: TrainCheck, folder: Path, results: Path) -> Path:
    folder.mkdir()
    known, record = learn(pool, peer, folder)
    keep(results, record)
    return known


def _play(case: Case, peer: TrainCheck, root: Path, pool: Future[Path] | None, until: float, results: Path) -> None:
    if time.monotonic() > until:
        return
    folder = root / case.name
    folder.mkdir()
    try:
        if case.is_error:
            record = compare_error(case, peer, folder)
        else:
            assert pool is not None
            record = compare_healthy(case, peer, folder, pool.result())
        keep(results, record)
        print(f"{case.name}: {_short([record])}", file=sys.stderr, flush=True)
    except Exception:
        print(f"{case.name}: {traceback.format_exc()}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)


def _short(records: Iterable[Record]) -> str:
    return "; ".join(
        each.get("failure")
        or f"{len(each.get('faulty', []))} new, {len(each.get('reference', []))} of the reference, "
        f"ours {each['ours'].get('verdict', each['ours'].get('failure'))}"
        for each in records
    )


if __name__ == "__main__":
    main()
