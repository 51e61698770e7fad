"""The wheel that a user installs: built, put into an environment without the checkout, and run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "eegpt_daemon/configs/demo.yaml" in names and "eegwatch/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "logs/"))]
    venv.create(folder / "env", with_pip=False)
    bin_folder = folder / "env" / "bin"
    subprocess.run([*pip, "--python", str(bin_folder / "python"), "install", "-q", "--no-deps", str(wheel)], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # a line of a .pth file adds a folder, and does not read the .pth files in it: the editable install stays out
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin_folder


def run(program: Path, *words: str, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(program), *words], cwd=cwd, env=clean, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_the_installed_programs_are_the_wheels(installed: Path, tmp_path: Path) -> None:
    code = "import eegwatch, eegpt_daemon; print(eegwatch.__file__, eegpt_daemon.__file__)"
    for path in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert path.startswith(str(installed.parent)), path


def test_the_manual_page_is_installed_where_man_looks_for_it(installed: Path) -> None:
    assert (installed.parent / "share" / "man" / "man1" / "eegwatch.1").read_text().startswith(".TH EEGWATCH 1")


def test_the_installed_daemon_starts_the_demo_and_the_monitor_draws_it(installed: Path, tmp_path: Path) -> None:
    try:
        assert "started: daemon pid" in run(installed / "eegpt-daemon", "start", "--no-check", cwd=tmp_path)
        assert "demo" in run(installed / "eegwatch", "logs", "--once", "--size", "100x30", cwd=tmp_path)
    finally:
        run(installed / "eegpt-daemon", "stop", cwd=tmp_path)
