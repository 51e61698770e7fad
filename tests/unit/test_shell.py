"""Commands on the screen run in the shell as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eegwatch.shell import command, program


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    program.cache_clear()
    yield
    program.cache_clear()


def test_in_an_activated_environment_the_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command("eegpt-daemon", "stop", "--logs", "my logs") == "eegpt-daemon stop --logs 'my logs'"


def test_without_one_the_program_beside_this_python_is_named_as_briefly_as_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first commands of a fresh clone, where nothing is in PATH: they run as they are printed."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(Path(sys.executable).parents[2])
    folder = Path(sys.executable).parents[1].name
    line = command("eegpt-daemon", "--version")
    assert line == f"{folder}/bin/eegpt-daemon --version"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("eegpt-daemon ")
