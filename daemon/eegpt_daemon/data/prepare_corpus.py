"""`eegpt-daemon prepare`: the corpus indexed, checked and encoded into the cache, without training anything."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eegpt_daemon.data import dataset
from eegpt_daemon.data.corpus_records import Look, corpus_looks, encoder_look
from eegwatch.diagnosis.findings import ERROR, Finding
from eegwatch.diagnosis.silent.watch import SilentWatch
from eegwatch.run import config as configuration
from eegwatch.run.records import Watch
from eegwatch.wording import duration, plain

SAY_EVERY_S = 30.0  # where there is no terminal to draw a bar in


def prepare_alone(path: Path) -> None:
    """Do what `start` would do before its first step, with progress. Raises the errors that `start` would."""
    config = configuration.load(path)
    encoder, notes = dataset.build_encoder(config)
    store = dataset.store_for(config, encoder, dataset.best_device())
    began = time.monotonic()
    with Bars() as bars:
        planned = dataset.plan(config, store, bars.report)
        for note in [*notes, *planned.notes, f"cache: {store.folder}, {planned.bytes_to_write / 1e6:,.1f} MB to write"]:
            bars.say(note)
        data = dataset.windows(config, store, planned, bars.report, bars.say)
        looks = [*corpus_looks(config, store, planned.entries, data.used()), ("encoder", encoder_look(encoder))]
        for finding in judged(looks):
            mark = "✖" if finding.severity == ERROR else "!"
            bars.say(f"{mark} {finding.message}; {finding.remedy}")
    counts = f"{len(data.train):,} train, {len(data.val) if data.val else 0:,} val, {len(data.test):,} eval windows"
    print(f"ready: {counts} in {store.folder}, {duration(time.monotonic() - began)}")


def judged(looks: list[Look]) -> list[Finding]:
    """The findings that these records lead to, as in the log of a run."""
    watch = SilentWatch()
    for look, values in looks:
        watch.feed(Watch(time=0.0, step=0, look=look, values=values))
    return watch.findings


class Bars:
    """Progress as bars in a terminal, as a line now and then without one."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed_at = time.monotonic()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, what: str, done: int, total: int) -> None:
        """`done` of `total` units of `what`."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
        if not self.console.is_terminal and (done == total or time.monotonic() - self._printed_at > SAY_EVERY_S):
            self._printed_at = time.monotonic()
            self.say(f"{what}: {done:,} of {total:,}")

    def say(self, text: str) -> None:
        self.console.print(plain(text))
