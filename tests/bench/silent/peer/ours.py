"""eegwatch on one case, as one line of JSON: `python -m tests.bench.silent.peer.ours NAME`."""

from __future__ import annotations

import json
import sys
import time

from tests.bench.silent.case import cases
from tests.bench.silent.play import play, played_once, quiet


def main(name: str) -> None:
    quiet()
    case = next(case for case in cases() if case.name == name)
    result = play(case)
    seconds = {}
    for watched in (False, True):
        began = time.process_time()
        played_once(case, case.is_error, watched)
        seconds["watched and checked" if watched else "bare"] = round(time.process_time() - began, 3)
    said = [[each.rule, each.severity, each.step] for each in result.said]
    of_reference = [[each.rule, each.severity, each.step] for each in result.of_reference]
    told = {
        "verdict": result.verdict(case),
        "step": result.step(case),
        "first": case.first,
        "said": said,
        "of_reference": of_reference,
        "same": result.identical,
        "cpu": seconds,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
