"""The subcommands of `eegwatch`, one module each: `prepare_parser` says its options, `run` does it.

A subcommand is one row of COMMANDS and one module of that name. `eegwatch PATH` is `eegwatch watch PATH`. A path that
is named like a subcommand is reached as `./check`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol, cast

from eegwatch import __version__
from eegwatch.wording import UserError

COMMANDS = {
    "watch": "watch a run on the screen; `eegwatch PATH` does the same",
    "check": "print the findings without a screen, for cron and CI",
    "dismiss": "dismiss a finding as intended: it no longer counts",
    "runs": "list the runs of a log root",
    "note": "show or write the note of a run",
    "cost": "compute the cost of a fault of the learning rate, by training the run again without it",
    "compare": "compare the scores of runs by their predictions",
    "report": "write one self-contained page on a run",
    "export": "write the metrics or the charts of a run",
    "serve": "show the screen in a browser",
    "tmux": "keep the screen in a tmux session",
    "completion": "print the completion script of a shell",
    "man": "print the manual page",
    "help": "show the help of a subcommand",
}
FORMER_NAMES = {"meant": "dismiss"}  # of version 0.2, still accepted
DESCRIPTION = "Watch a training run: its learning rate against the declared schedule, its loss, what is wrong."
EPILOG = (
    "`eegwatch COMMAND --help` shows the options of a subcommand. "
    "A file or folder that is named like a subcommand is reached as ./NAME. "
    "Exit codes: 0 nothing wrong, 1 findings of severity warning or error, 2 unreadable input or wrong usage."
)


class UsageError(UserError):
    """Words on the command line that are not understood: which, and where the right ones are listed."""


class Subcommand(Protocol):
    """A module of this package."""

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, with a suggestion for an option that is nearly right."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        for word in (word for word in unknown if word.startswith("--")):
            near = difflib.get_close_matches(word, list(self._option_string_actions), 1)
            if near:
                message += f"; did you mean {near[0]}?"
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help lists the options)")


def subcommand(name: str) -> Subcommand:
    """The module of a subcommand, imported when it is asked for."""
    return cast(Subcommand, importlib.import_module(f"eegwatch.commands.{name}"))


def parser_of(name: str) -> Parser:
    """The parser of one subcommand."""
    help = COMMANDS[name]
    parser = Parser(prog=f"eegwatch {name}", description=f"{help[0].upper()}{help[1:]}.")
    subcommand(name).prepare_parser(parser)
    return parser


def whole_parser() -> Parser:
    """All subcommands below one parser: for the help, the completion and the manual page."""
    parser = Parser(prog="eegwatch", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"eegwatch {__version__}")
    below = parser.add_subparsers(metavar="COMMAND", dest="command", title="subcommands")
    for name, help in COMMANDS.items():
        one = below.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        subcommand(name).prepare_parser(one)
    return parser


def run(words: Sequence[str]) -> int:
    """Run what the words of the command line ask for; returns the exit code. Raises UserError, OSError."""
    name, rest = choose_subcommand(list(words))
    if name in ("-h", "--help", "--version"):
        whole_parser().parse_args([name])
    return subcommand(name).run(parser_of(name).parse_args(rest))


def choose_subcommand(words: list[str]) -> tuple[str, list[str]]:
    """(subcommand, the words that remain for it). Raises UsageError for a word that is nearly a subcommand."""
    first = words[0] if words else ""
    first = FORMER_NAMES.get(first, first)
    if first in COMMANDS or first in ("-h", "--help", "--version"):
        return first, words[1:]
    if first and not first.startswith("-") and not Path(first).exists():
        near = difflib.get_close_matches(first, COMMANDS, 1)
        if near and Path(first).name == first:
            raise UsageError(f"{first}: no such file or folder; did you mean `eegwatch {near[0]}`?")
    return "watch", words
