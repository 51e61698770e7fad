"""`eegwatch [PATH]`: watch a run; `eegwatch check PATH`: the findings without a screen, for cron and CI.

Exit codes: 0 nothing wrong · 1 findings of severity warning or error · 2 unreadable input or wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin after import: twice the CPU for a 4 ms job

from eegwatch import __version__
from eegwatch.run.control import log_root
from eegwatch.run.folder import RUN_LOG, NotARun, newest_run, resolve

WRONG, UNREADABLE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["check"]:
            return check(_check_parser().parse_args(words[1:]))
        return watch(_watch_parser().parse_args(words))
    except NotARun as error:
        print(f"eegwatch: {error}", file=sys.stderr)
        return UNREADABLE
    except OSError as error:
        print(f"eegwatch: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return UNREADABLE


def _watch_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eegwatch",
        description="Watch a training run: its learning rate against the declared schedule, its loss, what is wrong.",
        epilog="eegwatch check PATH [--json] prints the findings without a screen.",
    )
    parser.add_argument(
        "path", nargs="?", help="log root, run folder or run.jsonl (default: $EEGWATCH_LOGS, else ./logs)"
    )
    parser.add_argument(
        "--once", action="store_true", help="print one frame as text and exit (default without a terminal)"
    )
    parser.add_argument("--size", default=None, metavar="WxH", help="size of that frame (default: 100x30)")
    parser.add_argument("--wait-steps", type=int, default=0, metavar="N", help="wait until the log holds N steps")
    parser.add_argument("--version", action="version", version=f"eegwatch {__version__}")
    return parser


def _check_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eegwatch check", description="Print a run's findings and exit.")
    parser.add_argument("path", help="log root (its newest run), run folder or run.jsonl")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser


def watch(arguments: argparse.Namespace) -> int:
    path = log_root(arguments.path)
    logs, folder = resolve(path) if path.exists() or arguments.path else (path, None)
    from eegwatch.tui.app import WatchApp  # textual: 0.2 s that `check` does not pay

    app = WatchApp(logs, folder)
    if arguments.once or not sys.stdout.isatty():
        from eegwatch.tui.frame import render

        width, height = _size(arguments.size or "100x30")
        print(render(app, width, height, arguments.wait_steps))
        return 0
    app.run()
    return app.return_code or 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if width.isdecimal() and height.isdecimal() and 20 <= int(width) <= 1000 and 6 <= int(height) <= 500:
        return int(width), int(height)
    raise NotARun(f"--size {text}: write it as WxH, for example 100x30")


def check(arguments: argparse.Namespace) -> int:
    """Run every detector over a log and print what they find."""
    from eegwatch.diagnosis.engine import Diagnosis, worst
    from eegwatch.run.history import items
    from eegwatch.run.log import Tail, run_decoder

    logs, folder = resolve(Path(arguments.path))
    folder = folder or newest_run(logs)
    if folder is None:
        raise NotARun(f"{arguments.path}: holds no run (a folder with {RUN_LOG})")
    tail, decoder, diagnosis = Tail(folder / RUN_LOG), run_decoder(), Diagnosis()
    known = 0
    while data := tail.read(1 << 20).data:
        records = decoder.decode(data)
        known += len(records)
        for item in items(records):
            diagnosis.feed(item)
    if not known:
        what = f"{decoder.bad} lines, none of them a record" if decoder.bad else "it is empty"
        raise NotARun(f"{folder / RUN_LOG}: not a run log: {what}")
    findings = diagnosis.findings
    if arguments.json:
        print(json.dumps({"run": folder.name, "findings": [f.as_dict() for f in findings], "bad_lines": decoder.bad}))
    else:
        for finding in findings:
            print(f"{finding.severity:7}  {finding.rule}  since step {finding.since_step:,}: {finding.message}")
            if finding.remedy:
                print(f"         {finding.remedy}")
        if not findings:
            print(f"{folder.name}: nothing wrong")
        if decoder.bad:
            print(f"{folder.name}: {decoder.bad} lines could not be read and were skipped", file=sys.stderr)
    return WRONG if worst(findings) in ("error", "warning") else 0


if __name__ == "__main__":
    sys.exit(main())
