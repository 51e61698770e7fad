"""`eegwatch serve`: the same screen in a browser, by textual-serve, on this machine alone and behind a token.

Anyone who can load the page can control the run, so nothing is answered without the token. It is made anew at each
start, printed once, and exchanged for a cookie: of another value, valid for this port alone, and never sent from other
sites (SameSite=Strict). A request for another host name (DNS rebinding) or from another origin is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eegwatch.shell import SERVER_PID
from eegwatch.wording import UserError

if TYPE_CHECKING:
    from aiohttp import web


class ServeError(UserError):
    """Why it cannot be served, and what to do."""


def run_server(words: list[str], host: str, port: int, *, read_only: bool) -> None:
    """Serve `eegwatch WORDS…` until Ctrl-C. Raises ServeError: an extra that is missing, a port that is taken."""
    try:
        from eegwatch.guarded_server import GuardedServer
    except ImportError:
        raise ServeError("a browser is served by textual-serve: pip install 'eegwatch[serve]'") from None

    port = _free(host, port)
    token = secrets.token_urlsafe(24)

    # exec: the screen is the server's own child, and sees by its parent's death that the server is gone
    command = f"{SERVER_PID}={os.getpid()} exec " + shlex.join([sys.executable, "-m", "eegwatch.cli", *words])
    GuardedServer(command, host, port, token, read_only=read_only).serve()


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
            return refused("this request comes from a page of another site")
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
