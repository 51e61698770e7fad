"""`eegwatch serve`: the same screen in a browser, by textual-serve, on this machine alone and behind a token.

Anyone who can load the page can control the run, so nothing is answered without the token. It is made anew at each
start, printed once, and exchanged for a cookie: of another value, valid for this port alone, and never sent from other
sites (SameSite=Strict). A request for another host name (DNS rebinding) or from another origin is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from eegwatch.shell import SERVER_PID
from eegwatch.wording import UserError

if TYPE_CHECKING:
    from aiohttp import web

ENDS_IN_S = 5.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SMALLEST, LARGEST = (20, 6), (500, 200)  # cells: a size that a page asks for beyond these is brought within


class ServeError(UserError):
    """Why it cannot be served, and what to do."""


def run_server(words: list[str], host: str, port: int, *, read_only: bool) -> None:
    """Serve `eegwatch WORDS…` until Ctrl-C. Raises ServeError: an extra that is missing, a port that is taken."""
    try:
        from textual_serve.app_service import AppService
        from textual_serve.server import Server
    except ImportError:
        raise ServeError("a browser is served by textual-serve: pip install 'eegwatch[serve]'") from None
    from aiohttp import web

    port = _free(host, port)
    token = secrets.token_urlsafe(24)

    class Guarded(Server):
        """textual-serve's server, which lets nobody in without the token."""

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard(token, host, port))
            app.on_cleanup.append(_screens_ended)
            return app

        def initialize_logging(self) -> None:
            """Our own errors alone, on standard error: a request that is no HTTP is answered 400, and is no news."""
            logging.getLogger("aiohttp.server").addFilter(_is_no_bad_request)

        async def on_startup(self, app: web.Application) -> None:
            self._announced = asyncio.create_task(self._announce())  # aiohttp begins to listen after this

        async def _announce(self) -> None:
            await _listened_to(host, port)
            print(f"eegwatch: {self.public_url}/?token={token}", flush=True)
            if host not in LOOPBACK:
                what = "see it" if read_only else "see it and command the run"
                print(f"eegwatch: {host} is reached by others, unencrypted: who has the link can {what}", flush=True)
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

    # exec: the screen is the server's own child, and sees by its parent's death that the server is gone
    command = f"{SERVER_PID}={os.getpid()} exec " + shlex.join([sys.executable, "-m", "eegwatch.cli", *words])
    Guarded(command, host=host, port=port, title="eegwatch").serve()


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    from aiohttp.http_exceptions import HttpProcessingError

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


def guard(token: str, host: str, port: int) -> Any:
    """A middleware of aiohttp: the right host and origin, and the token once, then the cookie; 403 otherwise."""
    from aiohttp import web

    cookie = f"eegwatch-{port}"  # cookies are not kept apart by port: two servers in one browser need two names
    value = hmac.new(token.encode(), cookie.encode(), hashlib.sha256).hexdigest()

    def refused(why: str) -> web.Response:
        return web.Response(status=403, text=f"eegwatch: {why}\n")

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not is_ours(request.headers.get("Host", ""), host, port):
            return refused("this is not a name of this server; open the link that eegwatch serve printed")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.headers.get('Host', '')}":
            return refused("asked for by another site")
        if same(request.query.get("token", ""), token):
            answer = web.HTTPFound(request.path)
            answer.set_cookie(cookie, value, httponly=True, samesite="Strict", path="/")
            return answer
        if not same(request.cookies.get(cookie, ""), value):
            return refused("open the link that eegwatch serve printed")
        return await handler(request)

    return check


def is_ours(named: str, host: str, port: int) -> bool:
    """Whether a Host header names this server: an address, localhost, this machine's name, or the value of --host.

    A page of another site whose name resolves to this machine (DNS rebinding) sends that other name.
    """
    try:
        parts = urlsplit(f"//{named}")
        name, given = parts.hostname or "", parts.port
    except ValueError:
        return False
    if (given or 80) != port:
        return False
    if name in {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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


def same(given: str, token: str) -> bool:
    """Compare in constant time; `given` may hold any bytes that a client sent."""
    return hmac.compare_digest(given.encode("utf-8", "backslashreplace"), token.encode())


def _free(host: str, port: int) -> int:
    """The port, or one that is free for 0. Raises ServeError if it is taken or the address is not ours."""
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError, UnicodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ServeError(f"{host}:{port}: {why}; give another --port or --host") from None
