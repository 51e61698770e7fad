"""The command lines of a script: `{run}`, `{checkpoint}` and `{lr}` filled in, as words, never through a shell."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from eegpt_daemon.link import SHELL_UMASK
from eegpt_daemon.script.checkpoints import CWD
from eegwatch.run.config import ConfigError, Script

FIELDS = {"command": {"run"}, "resume": {"run", "checkpoint", "lr"}}
_FIELD = re.compile(r"\{(\w+)\}")


def check(script: Script, where: str = "configuration") -> None:
    """Raises ConfigError for a template that names what it cannot have."""
    if not script.command:
        raise ConfigError(f"{where}: script.command: give the command as a list, for example [python, train.py]")
    for name, known in FIELDS.items():
        for word in _flat(getattr(script, name) or []):
            if "\0" in word:
                raise ConfigError(f"{where}: script.{name}: a word holds a NUL character")
            for field in _FIELD.findall(word):
                if field not in known:
                    fields = ", ".join(f"{{{k}}}" for k in sorted(known))
                    raise ConfigError(f"{where}: script.{name}: {{{field}}} is not known here; there are {fields}")
    if script.umask is not None and not re.fullmatch(r"(?:0o?)?[0-7]{1,4}", script.umask):
        raise ConfigError(f'{where}: script.umask: give it in octal and in quotes, such as "022"')
    if script.resume is not None and not script.checkpoints:
        raise ConfigError(f'{where}: script.checkpoints: give a pattern below the run folder, such as "output/**/*.pt"')
    for name in ("checkpoints", "log"):
        pattern = getattr(script, name) or ""
        if ".." in Path(pattern).parts or "{" in pattern.removeprefix(CWD):
            raise ConfigError(
                f"{where}: script.{name}: give a pattern below the run folder, {{cwd}}/… or an absolute one"
            )


def resolved(script: Script, where: str = "configuration") -> Script:
    """The script as it will be run from anywhere: its folder absolute, its program found in this shell's PATH.

    Raises ConfigError where the folder or the program does not exist.
    """
    check(script, where)
    folder = Path(os.path.expanduser(script.cwd)).resolve()
    if not folder.is_dir():
        raise ConfigError(f"{where}: script.cwd: {folder} is not a folder")
    env = {"PATH": os.environ.get("PATH", os.defpath)} | script.env
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ and name not in env:
            env[name] = os.environ[name]
    command = [_program(script.command[0], folder, env["PATH"], f"{where}: script.command"), *script.command[1:]]
    resume = script.resume
    if resume:
        first = _flat(resume[:1])[0]
        resume = [_program(first, folder, env["PATH"], f"{where}: script.resume"), *resume[1:]]
    umask = script.umask or os.environ.get(SHELL_UMASK)
    return msgspec.structs.replace(script, cwd=str(folder), env=env, command=command, resume=resume, umask=umask)


def _program(word: str, folder: Path, path: str, where: str) -> str:
    if "/" in word:
        executable = shutil.which(str(folder / os.path.expanduser(word)))
    else:
        executable = shutil.which(word, path=path)
        if executable is None and word == "python":
            executable = sys.executable  # a system that has python3 alone
    if executable is None:
        raise ConfigError(f"{where}: {word}: no such program in {folder if '/' in word else 'PATH'}")
    return os.path.abspath(executable)


def takes_rate(script: Script) -> bool:
    """Can a resume give the script a rate?"""
    return any("{lr}" in word for word in _flat(script.resume or []))


def _flat(words: Sequence[str | list[str]]) -> list[str]:
    return [word for part in words for word in ([part] if isinstance(part, str) else part)]


def filled(
    words: Sequence[str | list[str]], *, run: Path, checkpoint: Path | None = None, lr: float | None = None
) -> list[str]:
    """The words of a command line.

    Without an `lr`, a word that holds {lr} is left out with the option before it, and a list of words as a whole.
    """
    command: list[str] = []
    values = {"run": str(run), "checkpoint": str(checkpoint or ""), "lr": repr(lr)}
    if lr is None:
        words = [word for word in words if isinstance(word, str)]
    for word in _flat(words):
        if "{lr}" in word and lr is None:
            if word == "{lr}" and command and command[-1].startswith("-"):
                command.pop()
            continue
        command.append(_FIELD.sub(lambda match: values.get(match[1], match[0]), word))
    return command
