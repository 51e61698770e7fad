"""Trainer processes without the two seconds of importing torch: a parent that has imported it, and forks.

`python -m tests.e2e.zygote`: reads lines `FOLDER<tab>ATTEMPT_JSON`, runs the trainer's own entry point in a child for
each, and writes `pid N`, then `exit CODE` (negative for a signal). The child has a standard input and a status pipe of
its own, as from the supervisor; the parent computes nothing, so a fork of it is as good as new.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import scipy.stats  # noqa: F401  (the first evaluation would import it: a second)

import eegpt_daemon.trainer.loop  # noqa: F401  (torch: what takes long)
from eegpt_daemon.trainer import __main__ as entry


def main() -> None:
    pipe = Path(tempfile.mkdtemp()) / "status"
    os.mkfifo(pipe)
    os.open(pipe, os.O_RDWR)  # somebody listens
    print("ready", flush=True)
    zombies: list[int] = []
    for line in sys.stdin:
        folder, attempt = line.rstrip("\n").split("\t")
        orders, hold = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(orders, 0)
            log = os.open(Path(folder) / "trainer.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = ["trainer", folder, attempt, str(pipe)]
            code = 1
            try:
                code = entry.main()
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(f"pid {child}", flush=True)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its pid stays taken: a late kill hits nobody else
        assert ended is not None
        os.close(orders)
        os.close(hold)
        print(f"exit {ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status}", flush=True)
        zombies.append(child)
        if len(zombies) > 1:
            os.waitpid(zombies.pop(0), 0)


if __name__ == "__main__":
    main()
