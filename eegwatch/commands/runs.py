"""`eegwatch runs [LOGS]`: the runs of a log root, the newest first, one line each."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegwatch.commands.options import add_path, whole
from eegwatch.run.branches import in_tree
from eegwatch.run.control import log_root
from eegwatch.run.folder import NotARun, runs
from eegwatch.run.liveness import Liveness, Pulse
from eegwatch.run.notes import note_of
from eegwatch.run.seed_series import SeriesPlace, place_of, scores_of
from eegwatch.run.summary import Summary, summarise
from eegwatch.wording import json_line, plain, rate

HEADER = ("run", "state", "step", "LR", "AUROC", "verdict", "note")


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, nargs="?", help="log root (default: $EEGWATCH_LOGS, else ./logs)")
    parser.add_argument("--json", action="store_true", help="one JSON object a run and line instead of a table")
    parser.add_argument("--seeds", action="store_true", help="one row for each run of a series of seeds")
    parser.add_argument("-n", "--newest", type=whole(1), metavar="N", help="only the newest N")


def run(arguments: argparse.Namespace) -> int:
    logs = log_root(arguments.path)
    if not logs.is_dir():
        raise NotARun(f"{logs}: no such folder; give a log root (a folder whose folders hold runs)")
    newest = list(reversed(runs(logs)))[: arguments.newest]
    life = Pulse(logs).take()
    if arguments.json:
        for folder in newest:
            print(json_line(_as_dict(folder, life)))
        return 0
    if not newest:
        print(f"{logs}: no run")
        return 0
    summaries = {folder.name: (folder, _summary(folder)) for folder in newest}
    parents = {
        name: s.parent for name, (_, s) in summaries.items() if isinstance(s, Summary) and s.parent_step is not None
    }
    listed = [(depth, *summaries[name]) for depth, name in in_tree(summaries, parents)]
    rows = [HEADER, *_rows(listed, life, each_seed=arguments.seeds)]
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]  # no run has a note
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _summary(folder: Path) -> Summary | str:
    """The figures of a run, or why they cannot be read."""
    try:
        return summarise(folder)
    except OSError as error:
        return error.strerror or str(error)


def _as_dict(folder: Path, life: Liveness) -> dict[str, object]:
    s = _summary(folder)
    if isinstance(s, str):
        return {"run_id": folder.name, "state": "unreadable", "error": s}
    place = place_of(folder)
    series = {"series": place.series, "seed": place.seed} if place is not None else {}
    return s.as_dict() | {"state": _state(s, life), "note": note_of(folder)} | series


def _rows(listed: list[tuple[int, Path, Summary | str]], life: Liveness, *, each_seed: bool) -> list[tuple[str, ...]]:
    """One row a run; one for all runs of a series, where its newest run stands, unless each seed is asked for."""
    rows: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for depth, folder, s in listed:
        place = None if each_seed else place_of(folder)
        if place is None:
            rows.append(_row(folder, s, depth, life))
        elif place.series not in seen:
            seen.add(place.series)
            rows.append(_series_row(folder, s, place, life))
    return rows


def _series_row(newest: Path, s: Summary | str, place: SeriesPlace, life: Liveness) -> tuple[str, ...]:
    """State and step of the newest run; AUROC on the evaluation set, its mean and interval over seeds and subjects."""
    _, state, step, lr, auroc, verdict, note = _row(newest, s, 0, life)
    scores = scores_of(newest.parent / place.series)
    done = len(scores.seeds) if scores is not None else 0
    number = place.seeds.index(place.seed) + 1 if place.seed in place.seeds else 0
    score = f"{scores.text('auroc')} over {done} seeds" if scores is not None else auroc
    return f"{place.series} …", f"{state}, {number} of {len(place.seeds)} seeds", step, lr, score, verdict, note


def _row(folder: Path, s: Summary | str, depth: int, life: Liveness) -> tuple[str, ...]:
    """`depth`: how many runs it branched off from, which are listed above it."""
    name = f"{'  ' * (depth - 1)}└ {folder.name}" if depth else folder.name
    if isinstance(s, str):
        return name, "unreadable", "", "", "", s, note_of(folder)
    total = f" / {s.total_steps:,}" if s.total_steps else ""
    from_step = f" (from step {s.parent_step:,})" if s.parent_step is not None else ""
    attempts = f" (attempt {s.attempt})" if s.attempt > 1 else ""
    return (
        f"{name}{from_step}{attempts}",
        _state(s, life),
        f"{s.step:,}{total}",
        rate(s.lr) if s.lr is not None else "–",
        f"{s.auroc:.3f}" if s.auroc is not None else "–",
        s.verdict or "",
        note_of(folder),
    )


def _state(s: Summary, life: Liveness) -> str:
    return life.word if s.end is None and life.alive and s.run_id == life.run_id else s.state
