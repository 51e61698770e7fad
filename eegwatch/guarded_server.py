"""The web server of `eegwatch serve`: one screen a page, started and ended with its websocket.

It imports textual-serve, which an extra installs: `eegwatch.serve` imports this module where it serves.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import psutil
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from textual_serve.app_service import AppService
from textual_serve.server import Server

from eegwatch.serve import guard

ENDS_IN_S = 5.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SMALLEST, LARGEST = (20, 6), (500, 200)  # cells: a size that a page asks for beyond these is brought within


class GuardedServer(Server):
    """textual-serve's server, which lets nobody in without the token."""

    def __init__(self, command: str, host: str, port: int, token: str, *, read_only: bool) -> None:
        """`command`: the shell command of one screen, which is started for each page."""
        super().__init__(command, host=host, port=port, title="eegwatch")
        self._token, self._read_only = token, read_only

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(guard(self._token, self.host, self.port))
        app.on_cleanup.append(_screens_ended)
        return app

    def initialize_logging(self) -> None:
        """Log our own errors alone, on standard error; a request that is not HTTP is answered 400 and not logged."""
        logging.getLogger("aiohttp.server").addFilter(_is_no_bad_request)

    async def on_startup(self, app: web.Application) -> None:
        self._announced = asyncio.create_task(self._announce())  # aiohttp begins to listen after this

    async def _announce(self) -> None:
        await _listened_to(self.host, self.port)
        print(f"eegwatch: {self.public_url}/?token={self._token}", flush=True)
        if self.host not in LOOPBACK:
            what = "see it" if self._read_only else "see it and command the run"
            print(f"eegwatch: others reach {self.host}, unencrypted: whoever has the link can {what}", flush=True)
        print("eegwatch: Ctrl-C ends it", flush=True)

    async def handle_index(self, request: web.Request) -> Any:
        self.public_url = f"http://{request.host}"  # checked by `guard`: the address by which the browser came
        return await super().handle_index(request)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(heartbeat=15)
        await websocket.prepare(request)

        async def close() -> None:
            await websocket.close()

        service = AppService(
            self.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=close,
            download_manager=self.download_manager,
        )
        try:
            await service.start(*clamped(request.query.get("width"), request.query.get("height")))
            async for message in websocket:
                if message.type == web.WSMsgType.TEXT:
                    await _obey(message.data, service, websocket)
        except ConnectionError:
            pass  # the page was closed while something was written to it
        finally:
            await service.stop()
        return websocket


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _obey(text: str, service: Any, websocket: Any) -> None:
    """One message of the page; anything else is ignored."""
    try:
        kind, *rest = json.loads(text)
        data = rest[0] if rest else None
    except (ValueError, TypeError, RecursionError):
        return
    if kind == "stdin" and isinstance(data, str):
        await service.send_bytes(data.encode("utf-8", "replace"))
    elif kind == "resize" and isinstance(data, dict):
        await service.set_terminal_size(*clamped(data.get("width"), data.get("height")))
    elif kind == "ping":
        await websocket.send_json(["pong", data])
    elif kind == "blur":
        await service.blur()
    elif kind == "focus":
        await service.focus()


def clamped(width: object, height: object) -> tuple[int, int]:
    """The size of a screen that a page asks for, within what can be drawn; 80x24 where it asks for none."""
    sizes = []
    for value, usual, least, most in zip((width, height), (80, 24), SMALLEST, LARGEST, strict=True):
        try:
            number = int(float(str(value)[:12]))
        except (ValueError, OverflowError):
            number = usual
        sizes.append(min(max(number, least), most))
    return sizes[0], sizes[1]


async def _listened_to(host: str, port: int) -> None:
    """Until somebody answers there: a link that is opened at once then finds the server."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def _screens_ended(_: web.Application) -> None:
    """Wait for the screens' processes, which have been told to end; those that do not are killed."""
    children = psutil.Process().children()
    for waited in range(int(ENDS_IN_S / 0.1)):
        left = [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        if not left:
            break
        if waited == int(ENDS_IN_S / 0.2):
            for child in left:
                child.kill()
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)  # their transports are closed by the loop, which must still turn
