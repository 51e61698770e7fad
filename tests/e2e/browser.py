"""A real headless Chromium, driven over its DevTools protocol: open a page, press keys, look at it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import tempfile
import time
from typing import Any

from tests.patience import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. `async with Browser(url) as page`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._count = 0
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    async def __aenter__(self) -> Browser:
        import aiohttp

        assert CHROMIUM is not None
        self._process = await asyncio.create_subprocess_exec(
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
            f"--user-data-dir={self._profile.name}", "--window-size=1400,900", "about:blank",
            stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stderr is not None
        port = None
        while port is None:
            line = await asyncio.wait_for(self._process.stderr.readline(), 30)
            found = re.search(rb"ws://127\.0\.0\.1:(\d+)/", line)
            port = int(found[1]) if found else None
        self._drain = asyncio.ensure_future(self._process.stderr.read())
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            page = next(target for target in await answer.json(content_type=None) if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        await self.call("Page.enable")
        await self.call("Page.navigate", url=self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()
        await self._session.close()
        self._process.kill()
        await self._process.wait()
        self._drain.cancel()
        self._profile.cleanup()

    async def call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        await self._socket.send_str(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), PATIENCE_S)).data)
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]

    async def evaluate(self, script: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=script, returnByValue=True))["result"].get("value")

    async def until(self, script: str, patience: float = PATIENCE_S) -> Any:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            value = await self.evaluate(script)
            if value:
                return value
            await asyncio.sleep(0.1)
        raise AssertionError(f"not within {patience} s: {script}")

    async def press(self, key: str) -> None:
        await self.call("Input.dispatchKeyEvent", type="char", text=key)

    async def picture(self) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
