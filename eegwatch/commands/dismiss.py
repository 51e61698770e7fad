"""`eegwatch dismiss PATH RULE`: dismiss a finding as intended; it is recorded and no longer counts."""

from __future__ import annotations

import argparse

from eegwatch.commands.options import A_RUN, add_declaration, add_path, open_run
from eegwatch.run import dismissals
from eegwatch.wording import UserError, plain


class NothingToDismiss(UserError):
    """There is no such finding; the message lists the present ones."""


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, help=A_RUN)
    parser.add_argument("rule", metavar="RULE", help="the finding's rule, as `eegwatch check` prints it")
    parser.add_argument("--reason", default="", metavar="TEXT", help="the reason, for later readers")
    add_declaration(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write an `intent` record for each finding of the rule, resolved ones included. Raises UserError."""
    log = open_run(arguments, arguments.path)
    try:
        outcome = log.read_to_end()
    finally:
        log.close()
    findings = [finding for finding in [*outcome.findings, *outcome.past] if finding.bad]
    chosen = [finding for finding in findings if finding.rule == arguments.rule]
    if not chosen:
        there = ", ".join(dict.fromkeys(finding.rule for finding in findings)) or "nothing that counts"
        raise NothingToDismiss(f"{outcome.run}: no finding {arguments.rule}; there is {there}")
    attempt, step = log.history.run, log.history.step_done
    path = dismissals.append(
        log.folder,
        [(finding.rule, finding.since_step) for finding in chosen],
        step,
        reason=arguments.reason,
        run_id=attempt.run_id if attempt is not None else "",
    )
    for finding in chosen:
        words = f"{outcome.run}: {finding.rule} since step {finding.since_step:,} is dismissed, recorded in {path}"
        print(plain(words))
    return 0
