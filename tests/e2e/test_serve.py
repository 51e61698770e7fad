"""`eegwatch serve` as a person meets it: the real server, a real browser, and somebody without the token."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import LogWriter
from tests.e2e.browser import CHROMIUM, Browser

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

FIRST_SCREEN = "document.querySelector('body.-first-byte') !== null"
OBSERVED = np.array([0x56, 0xB4, 0xE9])  # the colour of the observed curve


@pytest.fixture
def link(log_writer: LogWriter) -> Iterator[str]:
    """What the server printed, for a run whose rate is frozen."""
    log_writer.run()
    log_writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    command = [sys.executable, "-m", "eegwatch.cli", "serve", str(log_writer.folder.parent), "--port", "0"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        yield found[0]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[0]
        assert "Traceback" not in said and process.returncode == 0


async def test_nobody_gets_in_without_the_token(link: str) -> None:
    base, _, token = link.partition("/?token=")
    assert base.startswith("http://127.0.0.1:") and len(token) >= 32
    async with aiohttp.ClientSession() as session:
        for place in ("/", "/ws", "/static/js/textual.js", "/?token=", f"/?token={token[:-1]}", "/?token=%C3%A9"):
            async with session.get(base + place) as answer:
                assert answer.status == 403, place
                assert token not in await answer.text()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(base + "/ws", headers={"Cookie": "eegwatch=guess"})
        assert refused.value.status == 403
        async with session.get(link, allow_redirects=False) as answer:
            assert answer.status == 302 and "token" not in answer.headers["Location"]
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
async def test_the_same_screen_in_a_browser_obeys_keys(link: str) -> None:
    from matplotlib.image import imread

    def pixels(png: bytes) -> np.ndarray:
        return (imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(int)

    async with Browser(link) as page:
        await page.until(FIRST_SCREEN)
        for _ in range(100):
            shown = pixels(await page.picture())
            curve = (np.abs(shown - OBSERVED).max(axis=2) < 24).sum()
            if curve > 200:
                break
            await asyncio.sleep(0.2)
        assert curve > 200, "no curve in the browser"
        assert await page.evaluate("location.search") == ""  # the token is gone from the address
        await page.evaluate("document.querySelector('textarea').focus()")
        await page.press("?")
        for _ in range(50):
            await asyncio.sleep(0.2)
            covered = (np.abs(pixels(await page.picture()) - OBSERVED).max(axis=2) < 24).sum()
            if covered < curve / 2:
                return  # the help lies over the charts
        raise AssertionError("a key changed nothing in the browser")


def test_a_port_that_is_taken_and_a_path_that_is_not_there_are_one_line_each(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, says in (
            ([str(tmp_path), "--port", port], "give another --port"),
            ([str(tmp_path / "none")], "no such file or folder"),
        ):
            command = [sys.executable, "-m", "eegwatch.cli", "serve", *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
