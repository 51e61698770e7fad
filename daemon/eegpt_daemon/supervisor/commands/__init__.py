"""The commands of the control file: one module each, listed once in COMMANDS."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.action import Action, CommandContext, Outcome
from eegpt_daemon.supervisor.commands.checkpoint import Checkpoint
from eegpt_daemon.supervisor.commands.evaluate import Evaluate
from eegpt_daemon.supervisor.commands.release import Release
from eegpt_daemon.supervisor.commands.restart import Restart
from eegpt_daemon.supervisor.commands.resume import Resume
from eegpt_daemon.supervisor.commands.stop import Stop

COMMANDS: dict[str, type[Action]] = {
    "stop": Stop,
    "restart": Restart,
    "resume": Resume,
    "checkpoint": Checkpoint,
    "evaluate": Evaluate,
    "release": Release,
}

__all__ = ["COMMANDS", "Action", "CommandContext", "Outcome"]
