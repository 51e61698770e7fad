"""The plan of the house: which way imports run, and how light the monitor is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lazily

ROOT = Path(__file__).resolve().parents[2]
# what a package of eegwatch may import from eegwatch
ALLOWED = {
    "run": {"run", "schedule", "wording", ""},
    "schedule": {"schedule"},
    "diagnosis": {"diagnosis", "run", "schedule", "wording"},
    "commands": {
        "firstframe",
        "commands",
        "run",
        "formats",
        "tui",
        "check",
        "comparison",
        "export",
        "report",
        "scores",
        "serve",
        "tmux",
        "wording",
        "",
    },
    "formats": {"formats", "run", "wording"},
    "scores": {"scores", "run", "wording"},
    "comparison": {"comparison", "scores", "run", "wording"},
    "charts": {"charts", "run", "diagnosis", "schedule", "wording"},
    "watching": {
        "watching",
        "optimizer_hooks",
        "run",
        "schedule",
        "runlog",
        "steering",
    },  # the last two: their types alone
    "runlog": {"runlog", "optimizer_hooks", "diagnosis", "run", "schedule", "steering", "watching"},
    "steering": {"steering", "optimizer_hooks", "run", "schedule", "runlog"},  # the last one: its types alone
    "integrations": {"integrations", "runlog", "run", "schedule", "steering"},
    "export.py": {"charts", "run", "wording"},
    "report.py": {"charts", "check", "diagnosis", "run", "wording", ""},
    "check.py": {"diagnosis", "formats", "run", "shell", "wording"},
    "tui": {"tui", "charts", "run", "diagnosis", "schedule", "shell", "wording", ""},
}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_a_module_that_tests_load_lazily_is_not_loaded_by_pytest_while_it_collects() -> None:
    module = lazily("no_such_module")
    assert not hasattr(module, "__test__") and not hasattr(module, "__bases__")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        module.anything  # noqa: B018


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(package: str) -> None:
    place = ROOT / "eegwatch" / package
    for path in [place] if place.suffix else place.rglob("*.py"):
        for name in imports_of(path):
            if name.split(".")[0] == "eegwatch":
                part = (name.split(".") + [""])[1]
                assert part in ALLOWED[package], f"{path.relative_to(ROOT)} imports {name}"


# inside the screen a file imports only from the rooms before its own
SCREEN = ("settings ascii key_order session", "actions", "banner resume_form", "widgets", "screens", "daemon_commands",
          "app", "text_frame")  # fmt: skip


def test_no_import_runs_up_inside_the_screen() -> None:
    floor = {room: number for number, rooms in enumerate(SCREEN) for room in rooms.split()}
    for path in (ROOT / "eegwatch" / "tui").rglob("*.py"):
        room = path.relative_to(ROOT / "eegwatch" / "tui").parts[0].removesuffix(".py")
        for name in imports_of(path):
            parts = name.split(".")
            if parts[:2] == ["eegwatch", "tui"] and len(parts) > 2 and room != "__init__":
                assert floor[parts[2]] <= floor[room], f"{path.relative_to(ROOT)} imports {name}"


def test_every_module_of_ours_that_is_imported_is_there() -> None:
    """A module that was moved leaves no import of its old name in a script, a benchmark or a test."""
    for folder in ("eegwatch", "daemon", "tests", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports_of(path):
                if name.split(".")[0] in ("eegwatch", "eegpt_daemon", "tests"):
                    place = ROOT / ("daemon" if name.startswith("eegpt_daemon") else "") / name.replace(".", "/")
                    is_there = place.with_suffix(".py").exists() or (place / "__init__.py").exists() or place.is_dir()
                    assert is_there, f"{path.relative_to(ROOT)} imports {name}, which is not there"


def test_the_light_side_never_imports_the_heavy_one() -> None:
    for path in (ROOT / "eegwatch").rglob("*.py"):
        heavy = {name for name in imports_of(path) if name.split(".")[0] in ("torch", "mne", "edfio", "eegpt_daemon")}
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


@pytest.mark.parametrize(
    "module", ["eegwatch.tui.app", "eegwatch.cli", "eegpt_daemon.cli", "eegpt_daemon.supervisor.loop"]
)
def test_neither_the_monitor_nor_the_supervisor_loads_torch_or_mne(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'mne', 'pandas', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["eegwatch.charts.kinds", "eegwatch.charts.plot", "eegwatch.export", "eegwatch.report"]
)
def test_charts_exports_and_reports_are_made_without_a_screen(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('textual', 'eegwatch.tui', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_beside_the_command_line_imports_the_screen() -> None:
    for path in (ROOT / "eegwatch").rglob("*.py"):
        part = path.relative_to(ROOT / "eegwatch").parts[0]
        if part not in ("tui", "cli.py", "commands"):
            screen = {name for name in imports_of(path) if name.startswith(("eegwatch.tui", "textual."))}
            assert not screen, f"{path.relative_to(ROOT)} imports {screen}"


# what a room of the daemon may import from eegpt_daemon; the supervisor is light, so it reaches nothing that loads torch
DAEMON_ALLOWED = {
    "supervisor": {"supervisor", "script", "link", "crash_points"},
    "script": {"script", "link"},
    "model": {"model"},
    "data": {"data", "model"},
    "trainer": {"trainer", "data", "model", "link", "crash_points"},
    "analysis": {"analysis", "trainer", "data", "model", "link"},
    "commands": {
        *("commands", "analysis", "trainer", "script", "supervisor", "preflight", "preflight_script"),
        *("data", "client", "launch", "errors"),
    },
}


@pytest.mark.parametrize("room", sorted(DAEMON_ALLOWED))
def test_the_rooms_of_the_daemon_import_one_way(room: str) -> None:
    for path in (ROOT / "daemon" / "eegpt_daemon" / room).rglob("*.py"):
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "eegpt_daemon":
                assert len(parts) == 1 or parts[1] in DAEMON_ALLOWED[room], f"{path.relative_to(ROOT)} imports {name}"
            assert room not in ("supervisor", "script") or parts[0] not in ("torch", "mne", "edfio"), (
                f"{path} imports {name}"
            )


def test_every_command_is_one_module_and_one_row_of_the_table() -> None:
    from typing import get_args, get_type_hints

    from eegpt_daemon.supervisor.commands import COMMANDS
    from eegwatch.run.control import Command

    assert set(COMMANDS) == set(get_args(get_type_hints(Command)["command"]))
    for name, kind in COMMANDS.items():
        assert kind.__module__ == f"eegpt_daemon.supervisor.commands.{name}"


def test_every_module_opens_with_a_sentence_that_says_what_it_is() -> None:
    for folder in ("eegwatch", "daemon"):
        for path in (ROOT / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_room_is_too_large_to_know_ones_way_in() -> None:
    for folder in ("eegwatch", "daemon"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 500, path
