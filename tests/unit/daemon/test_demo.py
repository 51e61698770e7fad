"""`make demo` and `make incident` do what is meant whatever the log root's daemon does just now."""

from __future__ import annotations

import pytest

from eegpt_daemon.demo import plan
from eegwatch.run.liveness import Liveness


@pytest.mark.parametrize(
    ("life", "what"),
    [
        (Liveness("none", "", False), "start"),
        (Liveness("dead", "", False, run_id="20261125-190758-demo"), "start"),
        (Liveness("idle", "", True, 7, None), "restart"),
        (Liveness("idle", "", True, 7, "20261125-190758-incident"), "restart"),
        (Liveness("training", "", True, 7, "20261125-190758-incident"), "watch"),
        (Liveness("preparing", "", True, 7, "20261125-190758-demo"), "restart"),
        (Liveness("training", "", True, 7, "20261125-190758-tuab_4s_paper_aligned"), "refuse"),
        (Liveness("evaluating", "", True, 7, "20261125-190758-my-incidental"), "refuse"),
    ],
)
def test_an_incident_over_each_state_of_a_log_root(life: Liveness, what: str) -> None:
    decided, words = plan("incident", life)
    assert decided == what and (
        life.run_id is None or decided == "start" or "incident" in words or life.run_id in words
    )
