"""`eegwatch check PATH …`: every detector over each log, without a screen, for cron and CI."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from eegwatch.commands.options import A_RUN, UNREADABLE, WRONG, add_declaration, add_path, open_run
from eegwatch.wording import UserError, json_line, plain, plain_lines


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, nargs="+", help=A_RUN)
    parser.add_argument("--json", action="store_true", help="one JSON object a run and line instead of text")
    add_declaration(parser)
    parser.add_argument(
        "--now", action="store_true", help="only present findings: resolved ones are not listed and do not count"
    )
    parser.add_argument("--follow", action="store_true", help="keep reading as the log grows, print each change")


def run(arguments: argparse.Namespace) -> int:
    """The exit code of the worst log: unreadable, then findings, then nothing wrong."""
    from eegwatch.check import Checked, CheckedRun, follow

    opened: list[CheckedRun] = []
    code = 0
    for path in arguments.path:
        try:
            opened.append(open_run(arguments, path))
        except (UserError, OSError) as error:
            code = _refused(path, error, as_json=arguments.json)
    if arguments.follow:
        return max(code, follow(opened, as_json=arguments.json, now=arguments.now) if opened else code)
    for log in opened:
        try:
            outcome: Checked = log.read_to_end()
        except (UserError, OSError) as error:
            code = _refused(log.name, error, as_json=arguments.json)
            continue
        finally:
            log.close()
        if arguments.now:
            outcome = replace(outcome, past=[])
        remarks = [] if arguments.json else [f"{outcome.run}: {remark}" for remark in outcome.remarks()]
        if not outcome.steps:
            words = "; ".join([f"{outcome.run}: {outcome.verdict()}", *outcome.remarks()])
            code, remarks = _refused(outcome.run, UserError(words), as_json=False), []
        if arguments.json:
            print(json_line(outcome.as_dict() | ({} if outcome.steps else {"error": outcome.verdict()})))
        elif outcome.steps or outcome.findings:
            print(plain_lines(outcome.text()))
        for remark in remarks:
            print(plain(remark), file=sys.stderr)
        code = max(code, WRONG if outcome.wrong or outcome.disorder else 0)
    return code


def _refused(name: str, error: UserError | OSError, *, as_json: bool) -> int:
    """Say that one log cannot be read; the others are still checked."""
    words = str(error)
    if isinstance(error, OSError):
        words = f"{error.filename or name}: {error.strerror or error}"
    print(f"eegwatch: {plain(words)}", file=sys.stderr)
    if as_json:
        print(json_line({"run": name, "error": words}))
    return UNREADABLE
