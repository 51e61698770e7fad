"""`eegwatch serve`: the same screen in a browser, by textual-serve, on this machine alone and behind a token.

Who has the page has the keyboard: the run can be stopped from it. So nothing is answered without the token, which is
made anew at each start, printed once, and changed for a cookie that no other site can send (SameSite=Strict).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import psutil

from eegwatch.wording import UserError

if TYPE_CHECKING:
    from aiohttp import web

COOKIE = "eegwatch"
ENDS_IN_S = 5.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServeError(UserError):
    """Why it cannot be served, and what to do."""


def run_server(words: list[str], host: str, port: int, *, read_only: bool) -> None:
    """Serve `eegwatch WORDS…` until Ctrl-C. Raises ServeError: an extra that is missing, a port that is taken."""
    try:
        from textual_serve.server import Server
    except ImportError:
        raise ServeError("a browser is served by textual-serve: pip install 'eegwatch[serve]'") from None
    port = _free(host, port)
    token = secrets.token_urlsafe(24)

    class Guarded(Server):
        """textual-serve's server, which lets nobody in without the token."""

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard(token))
            app.on_cleanup.append(_screens_ended)
            return app

        def initialize_logging(self) -> None:
            """Errors alone, on standard error, by logging's own last resort."""

        async def on_startup(self, app: web.Application) -> None:
            self._announced = asyncio.create_task(self._announce())  # aiohttp begins to listen after this

        async def _announce(self) -> None:
            await _listened_to(host, port)
            print(f"eegwatch: {self.public_url}/?token={token}", flush=True)
            if host not in LOOPBACK:
                what = "see it" if read_only else "see it and command the run"
                print(f"eegwatch: {host} is reached by others, unencrypted: who has the link can {what}", flush=True)
            print("eegwatch: Ctrl-C ends it", flush=True)

    command = shlex.join([sys.executable, "-m", "eegwatch.cli", *words])
    Guarded(command, host=host, port=port, title="eegwatch").serve()


async def _listened_to(host: str, port: int) -> None:
    """Until somebody answers there: who opens the link at once finds the door."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


def guard(token: str) -> Any:
    """A middleware of aiohttp: the token once, then the cookie; 403 without either."""
    from aiohttp import web

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if _same(request.query.get("token", ""), token):
            answer = web.HTTPFound(request.path)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            return answer
        if not _same(request.cookies.get(COOKIE, ""), token):
            return web.Response(status=403, text="eegwatch: open the link that eegwatch serve printed\n")
        return await handler(request)

    return check


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


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _free(host: str, port: int) -> int:
    """The port, or one that is free for 0. Raises ServeError if it is taken or the address is not ours."""
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ServeError(f"{host}:{port}: {error.strerror or error}; give another --port or --host") from None
