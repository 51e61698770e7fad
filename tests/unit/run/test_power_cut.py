"""The plug is pulled: every state that may be on the disk then is recovered from.

A shim over os.open, os.write, os.fsync and os.replace writes down what the real code does. Afterwards the disk may hold, of
each file, what was fsynced and any prefix of what was not; and of the names, what a folder's fsync made sure of and any
prefix of the changes since (ALICE, Pillai et al. 2014, enumerates the same). Each such state is laid out in a folder and
read by the code that reads it after a reboot.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.folder import CHECKPOINTS, RUN_LOG, write_whole
from eegwatch.run.log import AppendLog, daemon_decoder, read_all, run_decoder
from eegwatch.run.records import Answer, Checkpoint, Run, Step
from tests.patience import PATIENCE_S


@dataclass
class Disk:
    """What the recorded operations would leave. Files are numbered as they are created; names point to numbers."""

    root: Path
    files: list[bytearray] = field(default_factory=list)
    durable: list[int] = field(default_factory=list)  # bytes of each file that are certain
    names: dict[str, int] = field(default_factory=dict)  # certain ones
    pending: list[Callable[[dict[str, int]], None]] = field(default_factory=list)  # changes of names since
    now: dict[str, int] = field(default_factory=dict)
    open_files: dict[int, int | None] = field(default_factory=dict)  # descriptor -> file, None: a folder

    def states(self) -> Iterator[tuple[dict[str, int], tuple[int, ...]]]:
        """(names, length of each file) of everything that a cut at this moment may leave."""
        lengths = []
        for content, sure in zip(self.files, self.durable, strict=True):
            lengths.append(range(sure, len(content) + 1))
        for applied in range(len(self.pending) + 1):
            names = dict(self.names)
            for change in self.pending[:applied]:
                change(names)
            for chosen in product(*lengths):
                yield names, chosen

    def lay_out(self, folder: Path, names: dict[str, int], lengths: tuple[int, ...]) -> Path:
        for name, number in names.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[number][: lengths[number]])
        return folder


@contextmanager
def recorded(root: Path, at_each: Callable[[Disk], None]) -> Iterator[Disk]:
    """Run what is within with the shim in place; `at_each` is called after every operation below `root`."""
    disk = Disk(root)
    real = os.open, os.write, os.fsync, os.replace

    def name_of(path: str | os.PathLike[str]) -> str | None:
        path = Path(path)
        return str(path.relative_to(root)) if path.is_relative_to(root) else None

    def opened(path, flags, *rest, **named):  # type: ignore[no-untyped-def]
        name = name_of(path)
        new = name is not None and flags & os.O_CREAT and name not in disk.now
        fd = real[0](path, flags, *rest, **named)
        if name is None:
            return fd
        if new:
            number = len(disk.files)
            disk.files.append(bytearray())
            disk.durable.append(0)
            disk.now[name] = number
            disk.pending.append(lambda names: names.__setitem__(name, number))
            at_each(disk)
        disk.open_files[fd] = disk.now.get(name)
        return fd

    def written(fd, data):  # type: ignore[no-untyped-def]
        count = real[1](fd, data)
        number = disk.open_files.get(fd)
        if number is not None:
            disk.files[number] += bytes(data)[:count]
            at_each(disk)
        return count

    def synced(fd):  # type: ignore[no-untyped-def]
        real[2](fd)
        if fd not in disk.open_files:
            return
        number = disk.open_files[fd]
        if number is None:  # a folder: its names are certain now
            for change in disk.pending:
                change(disk.names)
            disk.pending.clear()
        else:
            disk.durable[number] = len(disk.files[number])
        at_each(disk)

    def replaced(old, new):  # type: ignore[no-untyped-def]
        real[3](old, new)
        source, target = name_of(old), name_of(new)
        assert source is not None and target is not None
        disk.now[target] = disk.now.pop(source)
        disk.pending.append(lambda names: names.__setitem__(target, names.pop(source)) if source in names else None)
        at_each(disk)

    os.open, os.write, os.fsync, os.replace = opened, written, synced, replaced  # type: ignore[assignment]
    try:
        yield disk
    finally:
        os.open, os.write, os.fsync, os.replace = real  # type: ignore[assignment]


def test_whatever_a_power_cut_leaves_of_log_and_checkpoints_a_run_goes_on_from_a_good_one(tmp_path: Path) -> None:
    root, seen = tmp_path / "run", set[tuple[tuple[tuple[str, int], ...], tuple[int, ...]]]()
    (root / CHECKPOINTS).mkdir(parents=True)
    checked = 0

    def check(disk: Disk) -> None:
        nonlocal checked
        for names, lengths in disk.states():
            state = (tuple(sorted(names.items())), lengths)
            if state in seen:
                continue
            seen.add(state)
            checked += 1
            folder = disk.lay_out(tmp_path / f"state-{checked}", names, lengths)
            recover(folder)

    def recover(folder: Path) -> None:
        log = folder / RUN_LOG
        if not log.exists():
            return
        AppendLog(log).close()  # the next writer ends a torn line first
        records = read_all(log, run_decoder())
        steps = [r.step for r in records if isinstance(r, Step)]
        assert steps == list(range(1, len(steps) + 1))
        logged = [r for r in records if isinstance(r, Checkpoint)]
        run = WatchedRun(folder, say=print)
        run.catch_up()
        name, _ = run.newest_good()
        run.close()
        # a checkpoint that the log names is whole on the disk, and so is the log up to its step
        assert name == (logged[-1].path if logged else None)
        if logged:
            assert len(steps) >= logged[-1].step

    with recorded(root, check):
        log = AppendLog(root / RUN_LOG)
        log.append(Run(total_steps=4, steps_per_epoch=2))
        log.sync()
        for saved in (2, 4):
            for step in (saved - 1, saved):
                log.append(Step(step=step, lr=1e-3, loss=0.5))
            log.sync()
            content, name = f"weights of step {saved}".encode() * 3, f"{CHECKPOINTS}/step-{saved:08d}.pt"
            write_whole(root / name, content)
            log.append(Checkpoint(step=saved, path=name, sha256=hashlib.sha256(content).hexdigest()))
            log.sync()
        log.close()
    assert checked > 100


def test_whatever_a_power_cut_leaves_an_accepted_command_is_known_before_it_is_acted_on(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    root.mkdir()
    acted, count = False, 0

    def check(disk: Disk) -> None:
        nonlocal count
        for names, lengths in disk.states():
            count += 1
            path = disk.lay_out(tmp_path / f"state-{count}", names, lengths) / "daemon.jsonl"
            statuses = []
            if path.exists():
                AppendLog(path).close()
                statuses = [r.status for r in read_all(path, daemon_decoder()) if isinstance(r, Answer)]
            assert statuses in ([], ["accepted"], ["accepted", "done"])
            assert not acted or statuses, "it may have been acted on, and nobody knows"

    with recorded(root, check) as disk:
        log = AppendLog(root / "daemon.jsonl")
        log.append(Answer(id="a", command="stop", status="accepted"))
        log.sync()
        acted = True
        check(disk)
        log.append(Answer(id="a", command="stop", status="done"))
        log.sync()
        log.close()
    assert count > 10


FULL = """
import resource, signal, sys
from pathlib import Path
from eegpt_daemon.supervisor.answers import PatientLog
from eegwatch.run.records import DaemonState
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
said = []
log = PatientLog(Path(sys.argv[1]), said.append)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
written = [log.append(DaemonState(state="training", step=n)) for n in range(40)]
assert written[0] and not written[-1]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert log.append(DaemonState(state="training", step=40))
print(len(said), said[0], said[-1], sep="|")
"""


def test_what_a_full_disk_refused_is_written_whole_and_in_order_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "daemon.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    count, first, last = done.stdout.strip().split("|")
    assert count == "2" and "cannot be written: File too large" in first and "can be written again" in last
    decoder = daemon_decoder()
    records = read_all(path, decoder)
    assert [r.step for r in records] == list(range(41))  # type: ignore[union-attr]
    assert decoder.bad <= 1  # the line that was torn, and was written again whole
