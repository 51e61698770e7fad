"""Notifications to systemd for a `Type=notify` service: ready, alive, stopping (sd_notify's datagrams)."""

from __future__ import annotations

import os
import socket


def notify_state(state: str, reason: str | None) -> None:
    """The daemon's state as systemd's status line; a sign of life for its watchdog."""
    if state == "exited":
        notify(STOPPING="1", STATUS=reason or state)
    elif state == "starting":
        notify(STATUS=reason or state)
    else:
        notify(READY="1", WATCHDOG="1", STATUS=f"{state}: {reason}" if reason else state)


def notify(**fields: str) -> None:
    """Send `READY="1"`, `STATUS="…"`, `WATCHDOG="1"`, …; does nothing where systemd did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    text = "\n".join(f"{key}={value}".replace("\n", " ") for key, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)  # one that does not read must not hold up a run
        try:
            channel.sendto(text.encode(), address.replace("@", "\0", 1))
        except OSError:
            return  # nor end it
