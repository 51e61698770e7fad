"""Messages about a run to a person who is not watching: through the user's command and through apprise.

A separate thread sends each message once, at most so many an hour: a dead webhook never stops training.
"""

from __future__ import annotations

import json
import queue
import shlex
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.diagnosis.findings import RESOLVED, Finding
from eegwatch.run.config import Notify
from eegwatch.run.records import End
from eegwatch.wording import plain

PATIENCE_S = 30.0  # for one command
DRAIN_S = 10.0  # when the daemon exits
HOUR_S = 3600.0
RANK = {"info": 0, "warning": 1, "error": 2}


class Message(msgspec.Struct, kw_only=True):
    """One thing to tell. `event`: finding, resolved, or the reason of an `end` record."""

    event: str
    severity: str
    run_id: str
    step: int
    message: str
    do: str = ""
    rule: str | None = None

    @property
    def title(self) -> str:
        return f"eegwatch: {self.run_id}: {self.rule or self.event}"

    @property
    def body(self) -> str:
        return f"{self.message} (step {self.step:,})" + (f"\n{self.do}" if self.do else "")


def message_of_finding(run_id: str, finding: Finding) -> Message:
    """The message for a finding that was raised or resolved."""
    event = "resolved" if finding.severity == RESOLVED else "finding"
    return Message(
        event=event, severity="info" if event == "resolved" else finding.severity, run_id=run_id, step=finding.step,
        message=finding.message, do=finding.remedy if event == "finding" else "", rule=finding.rule,
    )  # fmt: skip


def message_of_end(run_id: str, end: End | None, words: str) -> Message:
    """The message for the end of an attempt."""
    reason = end.reason if end is not None else "failed"
    severity = "error" if reason == "failed" else "info"
    step = end.step if end is not None else 0
    do = "eegpt-daemon resume continues from its newest checkpoint" if reason == "failed" else ""
    return Message(event=reason, severity=severity, run_id=run_id, step=step, message=words, do=do)


class Notifier:
    """Tells what it is given, by the settings of the run that is current."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self.logs, self._say = logs, say
        self.settings = Notify()
        self._queue: queue.Queue[tuple[Message, Notify] | None] = queue.Queue(maxsize=1000)
        self._sent: deque[float] = deque()
        self._held_back = 0
        self._up: dict[tuple[str, str | None], int] = {}
        self._complained: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def tell(self, message: Message) -> None:
        """Queue it, if there is anybody to tell and the hour's limit is not reached."""
        settings = self.settings
        if not settings.command and not settings.urls:
            return
        if message.event == "finding" and RANK.get(message.severity, 2) < RANK[settings.severity]:
            return
        if message.event in ("finding", "resolved") and not self._is_news(message):
            return
        if not self._within_limit(settings, message):
            if message.event == "resolved":
                self._up.pop((message.run_id, message.rule), None)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="notify", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait((message, settings))
        except queue.Full:
            self._complain("queue", "a thousand messages wait to be delivered; this one is dropped")
            return
        self._remember(message)

    def _within_limit(self, settings: Notify, message: Message) -> bool:
        """Count the message against the hourly limit; a message that is held back may be sent in the next hour."""
        now = time.monotonic()
        while self._sent and now - self._sent[0] > HOUR_S:
            self._sent.popleft()
        if len(self._sent) >= settings.most_per_hour:
            self._held_back += 1
            if self._held_back == 1:
                self._say(f"notify: {settings.most_per_hour} messages within an hour, further ones are held back")
            return False
        if self._held_back:
            message.message += f" ({self._held_back} messages before this one were held back)"
            self._held_back = 0
        self._sent.append(now)
        return True

    def _is_news(self, message: Message) -> bool:
        """Whether to send the finding: once while it is raised, again only if its severity rises."""
        key = (message.run_id, message.rule)
        if message.event == "resolved":
            return key in self._up
        return RANK.get(message.severity, 2) > self._up.get(key, -1)

    def _remember(self, message: Message) -> None:
        """Remember which raised findings were sent."""
        key = (message.run_id, message.rule)
        if message.event == "resolved":
            self._up.pop(key, None)
        elif message.event == "finding":
            self._up[key] = max(RANK.get(message.severity, 2), self._up.get(key, -1))

    def close(self) -> None:
        """Let what is queued go out, but not for long."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(DRAIN_S)

    def _deliver(self) -> None:
        while (item := self._queue.get()) is not None:
            message, settings = item
            if settings.command:
                self._run(settings.command, message)
            if settings.urls:
                self._post(settings.urls, message)

    def _run(self, command: str | list[str], message: Message) -> None:
        words = shlex.split(command) if isinstance(command, str) else command  # never through a shell
        tree: dict[str, Any] = msgspec.to_builtins(message)
        tree |= {"title": message.title, "time": time.time(), "host": socket.gethostname(), "logs": str(self.logs)}
        try:
            done = subprocess.run(
                words, input=json.dumps(tree).encode(), capture_output=True, timeout=PATIENCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            self._complain("command", f"{words[:1]}: {error}")
            return
        if done.returncode:
            errors = done.stderr.decode("utf-8", "replace").strip().splitlines()
            self._complain("command", f"{words[0]}: exit code {done.returncode} {plain(errors[-1]) if errors else ''}")

    def _post(self, urls: list[str], message: Message) -> None:
        try:
            import apprise
        except ImportError:
            self._complain("apprise", "notify.urls needs apprise: pip install 'eegwatch[notify]'")
            return
        for url in urls:
            where = url.partition("://")[0]  # the rest may hold a password
            kind = {"error": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}
            channel = apprise.Apprise()
            if not channel.add(url):
                self._complain(where, f"{where}://…: not an address that apprise knows")
            elif not channel.notify(
                title=message.title,
                body=message.body,
                notify_type=kind.get(message.severity, apprise.NotifyType.INFO),
            ):
                self._complain(where, f"{where}://…: could not be delivered")

    def _complain(self, what: str, words: str) -> None:
        """Once an hour for each way."""
        now = time.monotonic()
        if now - self._complained.get(what, -HOUR_S) >= HOUR_S:
            self._complained[what] = now
            self._say(f"notify: {words}")
