"""What a case is given: a log root of its own, a RunLog or none, and processes where it needs several."""

from __future__ import annotations

import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from eegwatch import RunLog

PATIENCE = timedelta(seconds=60)  # of a collective, under load


class Unwatched:
    """The calls of a RunLog, doing nothing: the training as it is without eegwatch, to be compared bit for bit."""

    folder = Path()

    def watch(self, *_: Any, **__: Any) -> None: ...

    def step(self, *_: Any, **__: Any) -> None: ...

    def eval(self, *_: Any, **__: Any) -> None: ...

    def checkpoint(self, *_: Any, **__: Any) -> None: ...

    def ema(self, *_: Any, **__: Any) -> None: ...

    def split(self, *_: Any, **__: Any) -> None: ...

    def replica(self) -> None: ...

    def end(self, *_: Any, **__: Any) -> None: ...

    def micro(self, loss: torch.Tensor, items: float) -> torch.Tensor:
        return loss

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        yield


class Script:
    """A case's surroundings. `root`: an empty folder; `watched`: are its logs RunLogs, or `Unwatched`?"""

    def __init__(self, root: Path, *, watched: bool, rank: int = 0, world: int = 1) -> None:
        self.root, self.watched, self.rank, self.world = root, watched, rank, world
        self._open: list[Any] = []
        self._folder: Path | None = None

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def path(self, name: str) -> Path:
        return self.root / name

    def log(self, *, resume: bool = False, step: int = 0, **options: Any) -> Any:
        """A log of this run: the first attempt, or with `resume=True, step=K` the next one of the same run."""
        self.close()
        if not self.watched:
            return Unwatched()
        folder = next(path.parent for path in self.logs.glob("*/run.jsonl")) if resume and self.rank else self._folder
        where = {"resume": folder, "step": step} if resume else {}
        log = RunLog(self.logs, name="case", control=False, **where, **options)
        self._folder = log.folder
        self._open.append(log)
        return log

    def close(self) -> None:
        """The logs that are open end: the attempt is over."""
        for log in self._open:
            log.end()
        self._open.clear()

    def on_ranks(self, play: Callable[[Script], torch.Tensor], world: int = 2) -> torch.Tensor:
        """`play` in `world` processes of one gloo group; returns their outcomes one after the other.

        Raises RuntimeError with the traceback of a process that failed.
        """
        import torch._dynamo  # else each child imports it, for seconds, with its first DDP or optimizer

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sys.stdout.flush()
        children = []
        for rank in range(world):
            child = os.fork()
            if child == 0:
                self._be(play, rank, world, port)
            children.append(child)
        failed = [os.waitpid(child, 0)[1] for child in children]
        told = [self.path(f"failed{rank}") for rank in range(world)]
        if any(failed):
            raise RuntimeError("\n".join(path.read_text() for path in told if path.exists()) or f"ranks ended {failed}")
        return torch.cat([torch.load(self.path(f"outcome{rank}.pt")) for rank in range(world)])

    def _be(self, play: Callable[[Script], torch.Tensor], rank: int, world: int, port: int) -> None:
        """In the forked process: join the group, train, leave the outcome in a file. Never returns."""
        code = 1
        try:
            warnings.simplefilter("ignore")
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            torch.set_num_threads(1)
            dist.init_process_group("gloo", rank=rank, world_size=world, timeout=PATIENCE)
            script = Script(self.root, watched=self.watched, rank=rank, world=world)
            torch.manual_seed(0)
            outcome = play(script)
            dist.barrier()
            script.close()
            torch.save(outcome, self.path(f"outcome{rank}.pt"))
            dist.destroy_process_group()
            code = 0
        except BaseException:
            self.path(f"failed{rank}").write_text(traceback.format_exc())
        finally:
            sys.stdout.flush()
            os._exit(code)
