"""The help: every key that can work now, in groups; `/` searches it, Enter on a line does what it says."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from eegwatch.tui.actions import COMMANDS, GROUPS, Action
from eegwatch.tui.widgets.lines import hanging
from eegwatch.wording import pattern_of

MARKS = (
    "✔ proved right   ✖ proved wrong   ! evidence, not proof   … not decided yet",
    "━ logged   ┄ planned, drawn to the end of the run   ░ all values of a column   ◆ evaluation   ┊ a resume",
    "A finding about the learning rate is a fact: the logged rates cannot come from the planned schedule.",
    "A single batch's loss scatters: the dotted range is what batch size and AUROC explain.",
)


WIDTH, FRAME, KEY_CELLS = 100, 6, 9  # cells: of the box at most, of its frame and scrollbar, before a line's words


class HelpScreen(ModalScreen[str | None]):
    """Dismissed with the action that was chosen, or None."""

    BINDINGS = [
        Binding("escape", "back", "close"),
        Binding("q,question_mark", "close", "close"),
        Binding("slash", "search", "search"),
        Binding("j", "move(1)", "down"),
        Binding("k", "move(-1)", "up"),
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > Vertical { width: 100; max-width: 100%; height: auto; max-height: 100%; border: round $accent;
                            padding: 0 1; background: $surface; }
    HelpScreen OptionList { height: auto; max-height: 100%; border: none; background: $surface; padding: 0; }
    HelpScreen OptionList:focus { border: none; background: $surface; background-tint: $surface 0%; }
    HelpScreen OptionList > .option-list--option-disabled { color: $text; }
    HelpScreen Input { height: 1; border: none; display: none; }
    HelpScreen Input.shown { display: block; }
    """

    def __init__(self, actions: Sequence[Action], impossible: Sequence[str] = ()) -> None:
        """`actions`: those that can work now; `impossible`: keys of commands that cannot."""
        super().__init__()
        self.actions, self.impossible = actions, impossible
        self.options = OptionList()
        self.pattern = Input(placeholder="search: part of a word, or a regular expression", compact=True)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "keys"
            box.border_subtitle = "Enter does it   / search   Esc close"
            yield self.pattern
            yield self.options

    def on_mount(self) -> None:
        self._fill()
        self.options.focus()

    def on_resize(self) -> None:
        at = self.options.highlighted
        self._fill()
        self.options.highlighted = at

    def _fill(self) -> None:
        """The lines that match, under the names of their groups."""
        pattern = pattern_of(self.pattern.value.strip())
        lines: list[Option] = []
        everything = not self.pattern.value.strip()
        for group in GROUPS:
            chosen = [a for a in self.actions if a.group == group and pattern.search(f"{a.key} {a.words} {a.help}")]
            not_now = [self._impossible_line()] if self.impossible and everything and group == COMMANDS else []
            if chosen or not_now:
                lines.append(Option(Text(group, "bold underline"), disabled=True))
                lines += [*(Option(self._line(a), id=a.action) for a in chosen), *not_now]
        if everything:
            lines.append(Option(Text(""), disabled=True))
            lines += [Option(Text(words), disabled=True) for words in MARKS]
        self.options.clear_options()
        self.options.add_options(lines or [Option(Text("nothing matches"), disabled=True)])
        self.options.action_first()

    def _impossible_line(self) -> Option:
        """The commands that cannot be carried out now: their keys say why."""
        keys = f"{' '.join(self.impossible):>7}  "
        words = Text.assemble((keys, "bold"), "cannot work now; pressed, each says why and what to do")
        width = min(self.app.size.width, WIDTH) - FRAME
        return Option(Text("\n").join(hanging(words, self.app.console, width, len(keys))), disabled=True)

    def _line(self, action: Action) -> Text:
        """Key and words; what wraps stands below the words."""
        line = Text.assemble((f"{action.key:>7}  ", "bold"), action.help)
        width = min(self.app.size.width, WIDTH) - FRAME
        return Text("\n").join(hanging(line, self.app.console, width, KEY_CELLS))

    @on(Input.Changed)
    def _typed(self) -> None:
        self._fill()

    @on(Input.Submitted)
    def _kept(self) -> None:
        self.options.focus()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_search(self) -> None:
        self.pattern.add_class("shown")
        self.pattern.focus()

    def action_move(self, by: int) -> None:
        if by > 0:
            self.options.action_cursor_down()
        else:
            self.options.action_cursor_up()

    def action_back(self) -> None:
        if self.pattern.has_class("shown"):
            self.pattern.value = ""
            self.pattern.remove_class("shown")
            self.options.focus()
        else:
            self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)
