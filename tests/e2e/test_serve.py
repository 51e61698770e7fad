"""`eegwatch serve` as a person meets it: the real server, a real browser, and somebody without the token."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import LogWriter
from tests.e2e.browser import CHROMIUM, Browser
from tests.patience import PATIENCE_S

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
        said = process.communicate(timeout=PATIENCE_S)[0]
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
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
            assert token not in cookie and cookie.startswith(f"eegwatch-{base.rpartition(':')[2]}=")


async def test_another_host_name_or_origin_is_refused_with_the_cookie_too(link: str) -> None:
    base = link.partition("/?token=")[0]
    port = base.rpartition(":")[2]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(link) as answer:
            assert answer.status == 200
        for headers in (
            {"Host": f"evil.example:{port}"},
            {"Host": "127.0.0.1:1"},
            {"Host": f"127.0.0.1.evil.example:{port}"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{int(port) + 1}"},
        ):
            async with session.get(base, headers=headers) as answer:
                assert answer.status == 403, headers
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(base + "/ws", headers={"Origin": "http://evil.example"})
        assert refused.value.status == 403


async def test_odd_bytes_sizes_and_messages_end_nothing(link: str) -> None:
    base = link.partition("/?token=")[0]
    host, _, port = base.removeprefix("http://").rpartition(":")
    for line in (b"GET /?token=%ff%fe HTTP/1.1", b"GET /?token=\xff\xfe HTTP/1.1", b"GET /\x00 HTTP/1.1"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            line
            + f"\r\nHost: {host}:{port}\r\nCookie: eegwatch-{port}=\udcff\r\n\r\n".encode("utf-8", "surrogateescape")
        )
        status = await reader.readline()
        assert b" 403 " in status or b" 400 " in status
        writer.close()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(link) as answer:
            assert answer.status == 200
        async with session.ws_connect(f"{base}/ws?width=99999999&height=-3") as page:
            for odd in (
                "",
                "{",
                "[]",
                "[[]]",
                '["resize", {"width": 1e99, "height": "x"}]',
                '["resize"]',
                '["stdin", 5]',
                "[" * 50_000,
                '["stdin", "\\ud800"]',
            ):
                await page.send_str(odd)
            await page.send_str('["ping", 7]')
            while True:
                message = await asyncio.wait_for(page.receive(), 60)
                if message.type == aiohttp.WSMsgType.TEXT and message.data == '["pong", 7]':
                    break
                assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


async def test_two_servers_in_one_browser_do_not_log_each_other_out(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 20)
    command = [sys.executable, "-m", "eegwatch.cli", "serve", str(log_writer.folder.parent), "--port", "0"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    servers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        for _ in range(2)
    ]
    try:
        links = [re.search(r"http://\S+", server.stdout.readline())[0] for server in servers]  # type: ignore[index, union-attr]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            for link in links:
                async with session.get(link) as answer:
                    assert answer.status == 200
            for link in links:
                async with session.get(link.partition("?")[0]) as answer:
                    assert answer.status == 200
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
            assert "Traceback" not in server.communicate(timeout=PATIENCE_S)[0]


async def test_screens_end_with_a_server_that_is_killed(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 20)
    command = [sys.executable, "-m", "eegwatch.cli", "serve", str(log_writer.folder.parent), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as server:
        link = re.search(r"http://\S+", server.stdout.readline())[0]  # type: ignore[index, union-attr]
        base = link.partition("/?token=")[0]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(link) as answer:
                assert answer.status == 200
            async with session.ws_connect(base + "/ws?width=80&height=24") as page:
                while (await asyncio.wait_for(page.receive(), 60)).type != aiohttp.WSMsgType.BINARY:
                    pass  # the screen draws: it runs
                (screen,) = psutil.Process(server.pid).children(recursive=True)
                server.kill()
                await asyncio.to_thread(screen.wait, 60)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
async def test_the_same_screen_in_a_browser_obeys_keys(link: str) -> None:
    from matplotlib.image import imread

    def pixels(png: bytes) -> np.ndarray:
        return (imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(int)

    async with Browser(link) as page:
        await page.until(FIRST_SCREEN)
        end, curve = time.monotonic() + PATIENCE_S, 0
        while curve <= 200:
            assert time.monotonic() < end, "no curve in the browser"
            await asyncio.sleep(0.2)
            curve = (np.abs(pixels(await page.picture()) - OBSERVED).max(axis=2) < 24).sum()
        assert await page.evaluate("location.search") == ""  # the token is gone from the address
        await page.evaluate("document.querySelector('textarea').focus()")
        await page.press("?")
        covered = curve
        while covered >= curve / 2:  # until the help lies over the charts
            assert time.monotonic() < end, "a key changed nothing in the browser"
            await asyncio.sleep(0.2)
            covered = (np.abs(pixels(await page.picture()) - OBSERVED).max(axis=2) < 24).sum()


def test_a_port_that_is_taken_and_a_path_that_is_not_there_are_one_line_each(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, says in (
            ([str(tmp_path), "--port", port], "give another --port"),
            ([str(tmp_path), "--port", "99999"], "--port"),
            ([str(tmp_path), "--host", "no.such.host.invalid"], "give another --port or --host"),
            ([str(tmp_path / "none")], "no such file or folder"),
        ):
            command = [sys.executable, "-m", "eegwatch.cli", "serve", *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
            assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
