"""`eegwatch help [COMMAND]`: what there is, or the options of one subcommand."""

from __future__ import annotations

import argparse

from eegwatch.commands import COMMANDS, parser_of, whole_parser


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="?", choices=tuple(COMMANDS), metavar="COMMAND", help="one of the subcommands")


def run(arguments: argparse.Namespace) -> int:
    parser = parser_of(arguments.subject) if arguments.subject else whole_parser()
    print(parser.format_help(), end="")
    return 0
