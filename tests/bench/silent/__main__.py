"""The benchmark of silent training errors: `python -m tests.bench.silent [--set first] [--case NAME] [--markdown]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.bench.silent.case import PARTS, Case, cases
from tests.bench.silent.judge import Result
from tests.bench.silent.play import play, play_by_name, quiet
from tests.bench.silent.table import markdown, of_one, text

PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.silent", description=__doc__)
    parser.add_argument("--set", "--half", dest="part", choices=PARTS, help="the cases of this set alone")
    parser.add_argument("--case", metavar="NAME", action="append", help="these cases alone, with all that is said")
    parser.add_argument("--markdown", action="store_true", help="the tables as docs/silent_benchmark.md holds them")
    arguments = parser.parse_args()
    chosen = cases(arguments.part)
    if arguments.case:
        unknown = set(arguments.case) - {case.name for case in chosen}
        if unknown:
            names = ", ".join(case.name for case in chosen)
            parser.error(f"no case is called {', '.join(sorted(unknown))}; there are: {names}")
        quiet()
        for case in chosen:
            if case.name in arguments.case:
                print(of_one(case, play(case)))
        return
    began = time.monotonic()
    results = dict(played(chosen))
    pairs = [(case, results[case.name]) for case in chosen]
    print(markdown(pairs) if arguments.markdown else text(pairs))
    print(f"\n{len(chosen)} cases in {time.monotonic() - began:.0f} s", file=sys.stderr)


def played(chosen: list[Case]) -> Iterator[tuple[str, Result]]:
    """Every case, in two processes that are begun anew: no thread or hook of this one is in them."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(play_by_name, case.name): case for case in chosen}
        for done, future in enumerate(as_completed(futures), start=1):
            name = futures[future].name
            if sys.stderr.isatty():
                print(f"\r{done}/{len(chosen)} {name:50}", end="", file=sys.stderr, flush=True)
            yield name, future.result()


if __name__ == "__main__":
    main()
