"""`release`: the rates back to a script's own scheduler; the daemon's own trainer has none and refuses it."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.action import ScriptsOnly


class Release(ScriptsOnly):
    why = "the rates of this trainer follow the declared schedule; resume without an LR goes back to it"
