"""`evaluate`: an evaluation now, in a script that uses RunLog; the daemon's own trainer refuses it."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.action import ScriptsOnly


class Evaluate(ScriptsOnly):
    why = "the trainer evaluates at its own times (training.val_check_interval)"
