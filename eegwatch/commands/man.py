"""`eegwatch man`: the manual page, made from the same text as the help. `eegwatch man | man -l -` shows it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator

from eegwatch import __version__
from eegwatch.commands import COMMANDS, DESCRIPTION, EPILOG, parser_of


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "pip installs it: man eegwatch. Without pip: eegwatch man > ~/.local/share/man/man1/eegwatch.1"


def run(arguments: argparse.Namespace) -> int:
    print(page())
    return 0


def page() -> str:
    """The manual page in troff."""
    lines = [
        f'.TH EEGWATCH 1 "" "eegwatch {__version__}" "User Commands"',
        ".SH NAME",
        "eegwatch \\- watch a training run in a terminal",
        ".SH SYNOPSIS",
        ".B eegwatch",
        "[\\fICOMMAND\\fR] [\\fIPATH\\fR] [\\fIOPTIONS\\fR]",
        ".SH DESCRIPTION",
        _escaped(DESCRIPTION),
        ".PP",
        _escaped(EPILOG),
        ".SH SUBCOMMANDS",
    ]
    for name in COMMANDS:
        lines += _subcommand(name)
    return "\n".join([*lines, ".SH ENVIRONMENT", *_environment()])


def _subcommand(name: str) -> Iterator[str]:
    parser = parser_of(name)
    parser.usage = None
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield f".SS {_escaped(name)}"
    yield _escaped(parser.description or "")
    yield f".PP\n.B {_escaped(usage)}"
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        names = ", ".join(action.option_strings) or action.metavar or action.dest
        value = f" {action.metavar}" if action.option_strings and action.metavar else ""
        yield f".TP\n\\fB{_escaped(f'{names}{value}')}\\fR"
        yield _escaped((action.help or "") % {"default": action.default, "prog": parser.prog})
    if parser.epilog:
        yield f".PP\n{_escaped(parser.epilog)}"


def _environment() -> list[str]:
    variables = {
        "EEGWATCH_LOGS": "the log root where no PATH is given",
        "EEGWATCH_CACHE": "where side files are kept (default: ~/.cache/eegwatch)",
        "NO_COLOR": "no colours",
    }
    return [f".TP\n.B {name}\n{_escaped(text)}" for name, text in variables.items()]


def _escaped(text: str) -> str:
    """Text in troff: a backslash and a hyphen are escaped, a line never begins with a request."""
    words = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in textwrap.wrap(words, 110)) or "\\&"
