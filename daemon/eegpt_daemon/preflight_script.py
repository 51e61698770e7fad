"""Checks of a script before it runs: its command lines, the effect of each key, and known problems of launchers."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import msgspec

from eegpt_daemon.preflight import ERROR, WARNING, Problem
from eegpt_daemon.script.template import takes_rate
from eegwatch.run.config import Config, ConfigError, Script

SHELLS = {"sh", "bash", "zsh", "dash", "ksh"}
READ_BYTES = 1 << 16  # of a launcher
_DETACHES = re.compile(r"\btmux\s+(?:new-session|new)\b.*\s-\w*d|\bscreen\s+-\w*d\w*m|\bsbatch\b|\bsetsid\b")
_BACKGROUND = re.compile(r"(?<![&>|])&\s*(?:#.*)?$")
_TEE = re.compile(r"\|\s*tee\b")


def refuse_traps(config: Config, script: Script, path: str) -> None:
    """For `start`: prints the warnings. Raises ConfigError with the first error."""
    for trap in script_traps(msgspec.structs.replace(config, script=script)):
        if trap.severity == ERROR:
            raise ConfigError(f"{path}: {trap.key}: {trap.message}; write {trap.write}; --no-check starts anyway")
        print(f"eegpt-daemon: {trap.key}: {trap.message}", file=sys.stderr)


def script_traps(config: Config) -> list[Problem]:
    """Traps of a configuration that runs a script. Errors keep `start` from starting it."""
    script = config.script
    assert script is not None
    traps = _launcher(script)
    if config.guard.on_error == "checkpoint":
        message = "only a script that uses RunLog and looks at log.checkpoint_requested can be asked for a checkpoint"
        traps.append(Problem(WARNING, "guard.on_error", message, "on_error: stop, or warn"))
    if script.resume is None or not script.checkpoints:
        message = "a script that dies is not resumed, and m is refused: script.resume and script.checkpoints say how"
        traps.append(Problem(WARNING, "script.resume", message))
    return traps


def _launcher(script: Script) -> list[Problem]:
    """A launcher that detaches the training, or hides how it ended."""
    line = shlex.join(script.command)
    if _DETACHES.search(line):
        return [_detached("script.command", line)]
    if Path(script.command[0]).name not in SHELLS or len(script.command) < 2:
        return []
    path = Path(script.cwd, script.command[1]).expanduser()
    try:
        text = path.read_bytes()[:READ_BYTES].decode("utf-8", "replace")
    except OSError:
        return []  # bash -c …, or what the shell itself will say
    code = [(n, line) for n, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#")]
    traps = [_detached(f"{path.name}, line {n}", line.strip()) for n, line in code if _DETACHES.search(line)]
    if any(_BACKGROUND.search(line) for _, line in code) and not re.search(r"^\s*wait\b", text, re.MULTILINE):
        message = f"{path.name} starts something in the background and does not wait: only its output is seen"
        traps.append(Problem(WARNING, "script.command", message, "the command of the training itself"))
    if any(_TEE.search(line) for _, line in code) and "pipefail" not in text:
        message = f"{path.name} pipes into tee: its exit code hides a crash, which only the last lines then show"
        traps.append(Problem(WARNING, "script.command", message, f"set -o pipefail (in {path.name})"))
    return traps


def _detached(where: str, line: str) -> Problem:
    message = f"{where} detaches the training ({line[:120]}): it can be neither watched nor stopped from here"
    return Problem(ERROR, "script.command", message, "the command of the training itself")


def shown(script: Script) -> list[str]:
    """For a terminal: what is run, where, and what the keys can do."""
    resume = shlex.join(w if isinstance(w, str) else f"[{' '.join(w)}]" for w in script.resume or [])
    live = "a script that uses RunLog can do more (docs/live_control.md)"
    again = f"from {script.checkpoints}" + ("" if takes_rate(script) else ", without a rate: no {lr} in script.resume")
    return [
        f"runs     {shlex.join(script.command)}",
        f"in       {script.cwd}",
        f"resumes  {resume}" if resume else "resumes  never: no script.resume",
        f"keys     s {script.stop}, r begins anew, m {again if resume else 'refused'}, w refused; {live}",
    ]
