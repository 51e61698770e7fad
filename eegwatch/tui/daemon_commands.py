"""The keys m, r, s and w: check whether the command can work, ask for confirmation, send the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import App

from eegwatch.shell import command as shell
from eegwatch.tui.actions import why_not
from eegwatch.wording import plain

if TYPE_CHECKING:  # the dialogs are imported when first opened
    from eegwatch.tui.resume_form import ResumeChoice
    from eegwatch.tui.screens.run import RunScreen
    from eegwatch.tui.session import Session

REFUSED_S = 15.0  # seconds that the reason stands on the screen: there may be a command to copy in it


class DaemonCommands(App[None]):
    """The part of the application that commands the daemon."""

    session: Session
    run_screen: RunScreen
    read_only: bool

    def _refused(self, command: str) -> bool:
        """True, with the reason and what to do instead on the screen, where the daemon cannot be asked for this."""
        reason = why_not(self.session, command, read_only=self.read_only)
        if reason is not None:
            self.notify(plain_keeping_lines(reason), title=f"no {command} now", severity="warning",
                        timeout=REFUSED_S, markup=False)  # fmt: skip
        return reason is not None

    def action_stop(self) -> None:
        from eegwatch.tui.resume_form import control_line
        from eegwatch.tui.screens.dialogs import Confirm

        if self._refused("stop"):
            return
        lines = [
            f"Stop {self.run_name()} after the current step?",
            "The script is asked to stop: it saves what it saves then."
            if self.session.steers_itself
            else self._unsaved() or "A checkpoint is written. The daemon stays, ready to resume or restart.",
        ]
        line = shell("eegpt-daemon", "stop", "--logs", self.session.logs) + "   (this ends the daemon too)"
        if self.session.steers_itself and self.session.folder is not None and not self.session.life.alive:
            line = control_line(self.session.folder, "stop")
        self.push_screen(Confirm("stop", lines, line), self._stop)

    def _unsaved(self) -> str | None:
        """What a stop of a script would lose."""
        from eegwatch.run.unsaved_steps import unsaved

        history, folder = self.session.history, self.session.folder
        saved = history.checkpoints
        return None if folder is None else unsaved(folder, history.step_done, saved[-1] if saved else None)

    def _stop(self, yes: bool | None) -> None:
        if yes:
            self._send("stop", "stop")

    def action_checkpoint(self) -> None:
        if not self._refused("checkpoint"):
            self._send("checkpoint", "checkpoint")

    def action_restart(self) -> None:
        from eegwatch.tui.screens.dialogs import Confirm

        if self._refused("restart"):
            return
        run = self.session.history.run
        if run is not None and run.inject:
            how = f"with the same configuration, but without the injected fault ({plain(run.inject)})?"
        else:
            how = "with the same configuration?"
        lines = [
            f"End {self.run_name()} and start a new run from step 0, {how}",
            "The old run and its checkpoints stay where they are.",
        ]
        line = shell("eegpt-daemon", "restart", "--logs", self.session.logs)
        self.push_screen(Confirm("fresh restart", lines, line), self._restart)

    def _restart(self, yes: bool | None) -> None:
        if yes:
            self._send("fresh restart", "restart")

    def action_resume(self) -> None:
        from eegwatch.tui.screens.resume import ResumeDialog

        if not self._refused("resume"):
            self.push_screen(ResumeDialog(self.session), self._resume)

    def _resume(self, choice: ResumeChoice | None) -> None:
        if choice is not None:
            self._send(choice.words, choice.command, lr=choice.lr, **choice.fields)

    def _send(self, what: str, command: str, *, lr: float | None = None, **fields: object) -> None:
        try:
            self.session.send(what, command, lr=lr, **fields)
        except OSError as error:
            self.notify(f"the command could not be written: {error}", severity="error", timeout=REFUSED_S)
        self.run_screen.redraw()

    def run_name(self) -> str:
        """The name of the run on the screen."""
        return self.session.name_of(self.session.folder) if self.session.folder else "the run"


def plain_keeping_lines(text: str) -> str:
    return "\n".join(map(plain, text.split("\n")))
