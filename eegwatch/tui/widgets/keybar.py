"""The last line of the screen: the keys that can work now; where the width is small, `?` and `q` stay the longest."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text

from eegwatch.tui.actions import possible
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import TextLines


class KeyBar(TextLines):
    """Keys and what they do; a click on one presses it."""

    DEFAULT_CSS = "KeyBar { height: 1; padding: 0 1; background: $panel; }"

    def show(self, session: Session, *, read_only: bool) -> None:
        actions = [action for action in possible(session, read_only=read_only) if action.bar]
        width = max(1, self.app.size.width - 2)
        while True:
            line = Text("   ").join(
                Text.assemble((action.key, "bold"), f" {action.words}", style=Style(meta={"@click": action.action}))
                for action in actions
            )
            if line.cell_len <= width or len(actions) <= 1:
                break
            actions.remove(max(actions, key=lambda action: action.bar))
        line.no_wrap = True
        self.put([line])
