"""`pytest --cpu FILE`: the CPU seconds of each test, those of its processes included, and the dearest ten.

Wall time on a shared machine says little about what a test costs. FILE gets one JSON line a test, `{"test", "cpu_s",
"children_s", "wall_s"}`, the dearest first; `children_s` is the part of `cpu_s` that other processes used. Counted are
the processes that were waited for, and everything that the zygote forked (tests/e2e/zygote.py), daemons included: it
adopts those whose parent has ended. A process that was executed, and outlived its parent, is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e import warm

SHOWN = 10
Row = dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", type=Path, metavar="FILE", help="write the CPU seconds of each test to FILE")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cpu") is not None:
        os.environ[warm.ADOPTS] = "1"
        config.pluginmanager.register(Meter(config), "cpu-meter")


def used() -> tuple[float, float]:
    """(CPU seconds of this process, of those that it and the zygote have waited for, and of the zygote itself)."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    forked = 0.0
    if (pid := warm.zygote_pid()) is not None:
        times = psutil.Process(pid).cpu_times()
        forked = times.user + times.system + times.children_user + times.children_system
    return own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime + forked


class Meter:
    """Measures in each worker, and gathers the rows where the session is reported."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.rows: list[Row] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """What a worker has used once the tests are collected: the interpreter, plugins and imports."""
        result = yield
        self.rows.append({"test": "collection", "cpu_s": used()[0], "children_s": 0.0, "wall_s": 0.0})
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        before, began = used(), time.monotonic()
        try:
            return (yield)
        finally:
            own, children = (now - then for now, then in zip(used(), before, strict=True))
            row = {"test": item.nodeid, "cpu_s": own + children, "children_s": children}
            self.rows.append(row | {"wall_s": time.monotonic() - began})

    def pytest_sessionfinish(self) -> None:
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["cpu"] = self.rows

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.rows += getattr(node, "workeroutput", {}).get("cpu", [])

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if hasattr(self.config, "workeroutput"):
            return
        rows = sorted(self.rows, key=lambda row: -row["cpu_s"])
        rounded = [{key: round(value, 3) if key != "test" else value for key, value in row.items()} for row in rows]
        self.config.getoption("--cpu").write_text("".join(json.dumps(row) + "\n" for row in rounded))
        folders: dict[str, float] = defaultdict(float)
        for row in rows:
            folders["/".join(row["test"].split("::")[0].split("/")[:2])] += row["cpu_s"]
        total = sum(folders.values())
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in sorted(folders.items(), key=lambda one: -one[1]))
        terminalreporter.section(f"CPU seconds: {total:.0f} ({parts})")
        for row in rows[:SHOWN]:
            terminalreporter.write_line(f"{row['cpu_s']:7.2f} s  {row['test']}")
