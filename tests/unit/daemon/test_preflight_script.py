"""What is said of a script before it runs and before it is stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from eegpt_daemon.preflight import ERROR, WARNING
from eegpt_daemon.preflight_script import refuse_traps, script_traps, shown
from eegpt_daemon.script.template import filled, resolved, takes_rate
from eegwatch.run.config import ConfigError, Script, parse_text
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, Run, Step
from eegwatch.run.unsaved_steps import unsaved_of

MINE = "script: {command: [bash, launch.sh, -x], resume: [bash, launch.sh, '{checkpoint}'], checkpoints: '*.pt'}\n"


@pytest.mark.parametrize(
    "launcher, severity, says",
    [
        ("python train.py\n", None, ""),
        ('S=eegpt\ntmux new-session -d -s "$S" "python train.py"\n', ERROR, "launch.sh, line 2 detaches the training"),
        ("tmux new -s eegpt -d python train.py\n", ERROR, "line 1 detaches"),
        ("screen -dmS eegpt python train.py", ERROR, "line 1 detaches"),
        ("# tmux new-session -d\nexec python train.py\n", None, ""),
        ("nohup python train.py > log 2>&1 &\n", WARNING, "starts something in the background and does not wait"),
        ("python a.py &\npython b.py &\nwait\n", None, ""),
        ("cd x && python train.py 2>&1 && echo ok\n", None, ""),
        ("python train.py 2>&1 | tee log\n", WARNING, "pipes into tee: its exit code hides a crash"),
        ("set -o pipefail\npython train.py 2>&1 | tee log\n", None, ""),
    ],
)
def test_a_launcher_that_hides_the_training_is_pointed_out(
    tmp_path: Path, launcher: str, severity: str | None, says: str
) -> None:
    (tmp_path / "launch.sh").write_text(launcher)
    config = parse_text(MINE, "mine.yaml")
    assert config.script is not None
    config.script.cwd = str(tmp_path)
    found = script_traps(config)
    assert [trap.severity for trap in found] == ([severity] if severity else [])
    assert all(says in trap.message for trap in found)


def test_an_error_keeps_start_from_starting_and_a_warning_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "launch.sh").write_text("tmux new -d python t.py\n")
    config = parse_text(MINE + "guard: {on_error: checkpoint}", "mine.yaml")
    assert config.script is not None
    config.script.cwd = str(tmp_path)
    script = resolved(config.script)
    with pytest.raises(ConfigError, match="detaches the training.*--no-check starts anyway"):
        refuse_traps(config, script, "mine.yaml")
    (tmp_path / "launch.sh").write_text("python t.py\n")
    refuse_traps(config, script, "mine.yaml")
    assert "guard.on_error: only a script that uses RunLog" in capsys.readouterr().err
    assert "s SIGINT, r begins anew, m from *.pt, without a rate" in shown(script)[-1]


def test_words_that_only_a_rate_needs_stand_in_a_list_of_their_own() -> None:
    script = Script(command=["x"], resume=["x", "--from=latest", ["--lr={lr}", "--no-decay"]], checkpoints="*.pt")
    assert takes_rate(script) and script.resume is not None
    run = Path("/run")
    assert filled(script.resume, run=run) == ["x", "--from=latest"]
    assert filled(script.resume, run=run, lr=3e-4) == ["x", "--from=latest", "--lr=0.0003", "--no-decay"]


def test_a_stop_says_beforehand_what_lies_beyond_the_newest_checkpoint(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "run.jsonl")
    log.append(Run(time=1.0, run_id="r", name="r", attempt=1, step=0))
    for step in range(1, 131):
        log.append(Step(time=time.time(), step=step, lr=1e-3))
    assert unsaved_of(tmp_path) is None  # no configuration of a script's
    (tmp_path / "config.yaml").write_text(MINE)
    assert "no checkpoint was seen: all 130 steps would be lost" in str(unsaved_of(tmp_path))
    log.append(Checkpoint(time=2.0, step=100, path="a.pt"))
    log.append(Checkpoint(time=2.0, step=125, path="b.pt"))
    log.append(Step(time=time.time(), step=131, lr=1e-3))
    said = "The script gets SIGINT; 6 steps lie beyond its newest complete checkpoint (b.pt, step 125)."
    assert unsaved_of(tmp_path) == said
    log.append(Run(time=3.0, run_id="r", name="r", attempt=2, step=100))
    log.append(Step(time=time.time(), step=101, lr=1e-3))
    assert "1 step lies beyond its newest complete checkpoint (a.pt, step 100)" in str(unsaved_of(tmp_path))
    (tmp_path / "config.yaml").write_text("script: {command: [bash, launch.sh]}")
    assert "what it saves is not known" in str(unsaved_of(tmp_path))
