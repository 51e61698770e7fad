"""Whatever is written into the control file, or named in it: one answer a line, and the training goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.processes import Daemon

ConfigFile = Callable[..., Path]
LONG = {"max_epochs": 5000, "pace_steps_per_s": 50, "val_check_interval": 100_000}
ODD_YAML = {
    "date": "experiment: {description: 2026-13-45}\nnonsense: 1\n",
    "tagged-date": "experiment: {name: !!timestamp 2026-99-99}\n",
    "deep": "a: " + "[" * 3000 + "\n",
    "deep-maps": "{a: " * 3000,
    "digits": "experiment: {seed: " + "9" * 5000 + "}\n",
    "wide-integer": "experiment: {seed: " + "9" * 4000 + "}\n",
    "nan": "training: {gradient_clip_val: .nan}\n",
    "holds-itself": "notify: &a {command: *a}\n",
    "nul": "a\0b: 1\n",
    "latin1": b"experiment: {name: \xe9}\n",
    "empty-int": 'experiment: {seed: !!int ""}\n',
    "bool": "experiment: {name: !!bool foo}\n",
    "python": "!!python/object/apply:os.system ['touch pwned']\n",
    "large": "#" * 400_000,
    "list": "- 1\n",
    "epochs": "training: {max_epochs: 9223372036854775807}\n",
    "surrogate": 'experiment: {name: "\\ud800"}\n',
}


def odd_configurations(folder: Path) -> list[str]:
    """Paths that a restart may name, none of which is a configuration."""
    for name, content in ODD_YAML.items():
        (folder / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(folder / "fifo.yaml")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    (folder / "unreadable").mkdir()
    paths = [str(folder / f"{name}.yaml") for name in (*ODD_YAML, "fifo", "loop", "missing")]
    return [*paths, "/dev/zero", "/dev/full", str(folder), "", "a\0b", "x" * 60_000, "/proc/self/mem", "~nobody/x.yaml"]


def odd_checkpoints() -> list[str]:
    name = "checkpoints/step-00000001.pt"
    return [
        "x" * 60_000, "a\0b", "", ".", "..", "/dev/zero", "/etc/passwd", f"../{name}", f"checkpoints/../{name}", "checkpoints",
        "checkpoints/step-99.pt", "checkpoints/step-00000000.pt", f"{name}\n", f"checkpoints/step-{'9' * 400}.pt",
        "checkpoints/step-٠٠٠٠٠٠٠٠.pt",
    ]  # fmt: skip


def odd_lines(folder: Path) -> list[bytes]:
    """Lines that are answered with one word, none of which begins anything."""
    commands: list[dict[str, Any]] = [
        *({"command": "restart", "config": path} for path in odd_configurations(folder)),
        *({"command": "resume", "checkpoint": name} for name in odd_checkpoints()),
        *({"command": "resume", "lr": lr} for lr in (0, -1, -0.0, 1e300, 1e9)),
        {"command": "resume", "then": "hold"},
        {"command": "resume", "lr": None, "then": "anneal"},
        {"command": "resume", "lr": "3e-4"},
        {"command": "resume", "lr": [3e-4]},
        {"command": "resume", "lr": 3e-4, "then": "explode"},
        {"command": "stop", "run_id": "x" * 60_000},
        {"command": "stop", "attempt": 10**30},
        {"command": "stop", "attempt": -1},
        {"command": "stop", "expires": -1e308},
        {"command": "stop", "time": -1e308},
        {"command": "stop", "exit": "yes"},
        {"command": "stop", "id": 7},
        {"command": "stop", "unknown": 1},
        {"command": "STOP"},
        {"command": None},
        {"command": "x" * 60_000},
        {"id": "only-an-id"},
        {},
    ]
    raw = [
        b"null", b"[]", b"7", b'"stop"', b"stop", b"{", b'{"command": "stop"', b'{"command": "stop"}}', b"\xff\xfe", b"\0\0",
        b"[" * 3000, b'{"a":' * 3000, b'{"command": "stop", "time": 1e999}', b'{"command": "stop", "id": "\\ud800"}',
        b'{"command": "stop", "expires": NaN}', b'{"command": "resume", "lr": NaN}', b'{"command": "resume", "lr": 1e400}',
        b'{"command": "stop"} {"command": "stop"}', b"#" * 70_000, b'{"command": "stop", "command": 3}',
    ]  # fmt: skip
    return [*(json.dumps(command).encode() for command in commands), *raw]


def test_odd_lines_are_answered_once_each_and_the_training_goes_on(
    daemon: Daemon, config_file: ConfigFile, tmp_path: Path
) -> None:
    daemon.start(config_file(**LONG))
    daemon.wait_for_step(3)
    folder = tmp_path / "odd"
    folder.mkdir()
    lines = odd_lines(folder)
    assert len(lines) >= 60
    control = daemon.logs / "control.jsonl"
    offsets = []
    for line in lines:
        offsets.append(control.stat().st_size if control.exists() else 0)
        with control.open("ab") as file:
            file.write(line + b"\n")
        control.chmod(0o600)
    expected = [f"line-{offset}" for offset in offsets]
    expected[lines.index(b'{"id": "only-an-id"}')] = "only-an-id"
    answers = daemon.wait(lambda: len(daemon.answers()) >= len(lines) and daemon.answers())
    time.sleep(1.0)  # a second answer would come by now
    answers = daemon.answers()
    assert sorted(a["id"] for a in answers) == sorted(expected)
    assert {a["status"] for a in answers} <= {"rejected", "expired"}, [a for a in answers if a["status"] == "accepted"]
    assert all(len(a["reason"]) < 1100 for a in answers)
    step = daemon.records("step")[-1]["step"]
    daemon.wait_for_step(step + 20)
    assert len(daemon.records("run")) == 1 and not (Path.cwd() / "pwned").exists()
    daemon.say(command="checkpoint", id="after")
    daemon.wait(lambda: [a for a in daemon.answers("after") if a["status"] == "done"])
    assert "Traceback" not in (daemon.logs / "daemon.out").read_text()
    daemon.cli("stop")


def test_what_a_detector_or_a_command_raises_is_answered_and_said(daemon: Daemon, log_writer: Any) -> None:
    """A log whose records are good JSON and no run: the daemon starts on it, answers, and ends when told."""
    root = log_writer.folder.parent
    log_writer.run(schedule={"name": "from the future", "total_steps": 2000})
    log_writer.log.write(
        b'{"type":"step","step":9223372036854775808,"lr":1e-3,"loss":0.5}\n'
        b'{"type":"step","step":7,"skipped":2147483648,"lr":1e-3,"loss":0.5}\n'
        b'{"type":"run","run_id":"x","step":-5,"total_steps":9223372036854775808,"overrides":[{}],"schedule":{"name":[]}}\n'
        b'{"type":"eval","step":1,"time":1e300}\n{"type":"checkpoint","step":1,"path":"../../../etc/passwd"}\n'
    )
    (log_writer.folder / "config.yaml").write_text("experiment: {name: x}\n")
    daemon.logs = root
    daemon.begin_idle()
    for number, line in enumerate(
        (
            {"command": "resume", "lr": 3e-4},
            {"command": "resume", "checkpoint": "../../../etc/passwd"},
            {"command": "stop"},
        )
    ):
        daemon.say(id=f"n{number}", **line)
    for number in range(3):
        (answer,) = daemon.wait(lambda n=number: daemon.answers(f"n{n}"))
        assert answer["status"] == "rejected"
    daemon.cli("status")
    daemon.cli("stop")
