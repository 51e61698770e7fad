"""Alarms that reach a person: a real command, a real HTTP server, a real SMTP server; and a webhook that is dead."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from eegpt_daemon.supervisor.notify import Message, Notifier
from eegwatch.run.config import Notify
from tests.e2e.processes import Daemon
from tests.e2e.processes import whole_lines as told
from tests.e2e.test_supervision import ConfigFile
from tests.patience import PATIENCE_S

KEEP = "import sys, json; open(sys.argv[1], 'a').write(json.dumps(json.load(sys.stdin)) + '\\n')"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def notifier(tmp_path: Path, said: list[str]) -> Iterator[Notifier]:
    it = Notifier(tmp_path, said.append)
    yield it
    it.close()


def finding(n: int = 0, severity: str = "error") -> Message:
    return Message(
        event="finding",
        severity=severity,
        run_id="run",
        step=n,
        message=f"LR frozen {n}",
        do="press m",
        rule="lr_stuck",
    )


def ended(n: int) -> Message:
    return Message(event="failed", severity="error", run_id="run", step=n, message="killed by SIGKILL")


def wait(what: Any, patience: float = PATIENCE_S) -> Any:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {patience} s")


def test_a_command_gets_one_json_object_and_no_shell(notifier: Notifier, tmp_path: Path) -> None:
    out = tmp_path / "told; touch owned"
    notifier.settings = Notify(command=[sys.executable, "-c", KEEP, str(out)])
    notifier.tell(finding())
    (one,) = wait(lambda: told(out))
    assert one["rule"] == "lr_stuck" and one["message"] == "LR frozen 0" and one["do"] == "press m"
    assert one["logs"] == str(tmp_path) and not (tmp_path / "owned").exists()


def test_what_is_below_the_severity_or_beyond_the_hours_limit_is_held_back(
    notifier: Notifier, tmp_path: Path, said: list[str]
) -> None:
    out = tmp_path / "told"
    notifier.settings = Notify(command=[sys.executable, "-c", KEEP, str(out)], severity="error", most_per_hour=3)
    notifier.tell(finding(severity="warning"))
    for n in range(6):
        notifier.tell(ended(n))
    notifier.close()
    assert [m["step"] for m in told(out)] == [0, 1, 2]
    assert said == ["notify: 3 messages within an hour, further ones are held back"]


def test_a_finding_is_told_once_until_it_is_over_or_worse(notifier: Notifier, tmp_path: Path) -> None:
    out = tmp_path / "told"
    notifier.settings = Notify(command=[sys.executable, "-c", KEEP, str(out)])
    over = Message(event="resolved", severity="info", run_id="run", step=9, message="it moves", rule="lr_stuck")
    for message in (finding(1, "warning"), finding(2, "warning"), finding(3), finding(4), over, over, finding(5)):
        notifier.tell(message)
    notifier.close()
    assert [(m["event"], m["step"]) for m in told(out)] == [
        ("finding", 1),
        ("finding", 3),
        ("resolved", 9),
        ("finding", 5),
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/no/such/program", "No such file"),
        ([sys.executable, "-c", "import sys; sys.exit('out of paper')"], "out of paper"),
    ],
)
def test_a_command_that_fails_is_said_once(
    notifier: Notifier, said: list[str], command: str | list[str], words: str
) -> None:
    notifier.settings = Notify(command=command)
    notifier.tell(ended(1))
    notifier.tell(ended(2))
    notifier.close()
    assert len(said) == 1 and words in said[0]


def test_apprise_reaches_a_real_http_server_and_a_dead_one_is_said(notifier: Notifier, said: list[str]) -> None:
    pytest.importorskip("apprise")
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        notifier.settings = Notify(urls=["json://127.0.0.1:1/secret-token", f"json://127.0.0.1:{port}/"])
        notifier.tell(finding(7))
        (one,) = wait(lambda: got)
        server.shutdown()
    assert one["title"] == "eegwatch: run: lr_stuck" and "LR frozen 7 (step 7)\npress m" in one["message"]
    assert one["type"] == "failure"
    assert len(said) == 1 and "could not be delivered" in said[0] and "secret" not in said[0]


def test_apprise_reaches_a_real_mail_server(notifier: Notifier, said: list[str]) -> None:
    pytest.importorskip("apprise")
    from aiosmtpd.controller import Controller

    got: list[Any] = []

    class Box:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            got.append(message_from_bytes(envelope.content, policy=policy.default))
            return "250 OK"

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    controller = Controller(Box(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        notifier.settings = Notify(
            urls=[f"mailto://127.0.0.1:{port}?from=daemon@example.org&to=me@example.org&mode=insecure"]
        )
        notifier.tell(finding(3))
        (mail,) = wait(lambda: got or said)
    finally:
        controller.stop()
    assert mail["Subject"] == "eegwatch: run: lr_stuck" and "LR frozen 3" in mail.as_string()


def test_a_real_run_tells_of_its_finding_and_its_end_and_a_dead_webhook_stops_nothing(
    daemon: Daemon, config_file: ConfigFile, tmp_path: Path
) -> None:
    out = tmp_path / "told"
    notify = {"command": [sys.executable, "-c", KEEP, str(out)], "urls": ["json://127.0.0.1:1/"]}
    top = {"inject": "scheduler_stepped_per_epoch", "notify": notify}
    daemon.start(config_file(top=top, max_epochs=6))
    daemon.wait(lambda: daemon.records("end"))
    daemon.wait(lambda: any(m["event"] == "completed" for m in told(out)))
    messages = told(out)
    stuck = [m for m in messages if m["rule"] == "lr_stuck" and m["event"] == "finding"]
    assert len(stuck) == 1 and "LR stuck" in stuck[0]["message"] and "scheduler.step()" in stuck[0]["do"]
    assert messages[-1]["run_id"] == daemon.run.name and messages[-1]["severity"] == "info"
    assert daemon.records("end")[-1]["reason"] == "completed"
