"""`eegwatch completion SHELL`: the completion script of bash, zsh or fish, made by shtab from the parsers."""

from __future__ import annotations

import argparse

from eegwatch.commands import whole_parser
from eegwatch.wording import UserError

SHELLS = ("bash", "zsh", "fish")


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    parser.epilog = (
        "bash: eegwatch completion bash > ~/.local/share/bash-completion/completions/eegwatch; "
        "zsh: eegwatch completion zsh > a folder of $fpath, as _eegwatch; "
        "fish: eegwatch completion fish > ~/.config/fish/completions/eegwatch.fish"
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise UserError("completion scripts are written by shtab: pip install shtab") from None
    print(shtab.complete(whole_parser(), arguments.shell))
    return 0
