"""Keys take effect one after the other, in the order in which they were typed.

Textual hands a key to the widget that has the focus when the key arrives. What the key before it leads to (a dialog
that opens, text that is inserted) may come later: of `m`, `3e-4`, Enter in one burst (a paste, an ssh packet, a busy
machine) the digits went to the screen under the dialog, and Enter confirmed an empty field. Here a key waits until the
one before it has been handled to the end, a dialog that it opened included.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from textual import events
from textual.app import App
from textual.message import Message
from textual.message_pump import MessagePump

LOST_AFTER_S = 0.5  # a mark dies with a screen that closes: the next key then waits no longer
Result = TypeVar("Result")


class KeyHandled(Message):
    """A mark that follows a key on its way: where it arrives, the key has been before."""

    def __init__(self, number: int, settled: bool) -> None:
        super().__init__()
        self.number, self.settled = number, settled


class OrderedKeysApp(App[Result], Generic[Result]):
    """An App whose keys and pastes are handled strictly one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._typed: deque[events.Key | events.Paste] = deque()
        self._key_number = 0
        self._key_pending = False
        self.keys_held = True  # until the screen that they are for is there

    async def release_keys(self) -> None:
        """Handle the keys that came while the application started, and each further one as it comes."""
        self.keys_held = False
        if not self._key_pending:
            await self._handle_next_key()

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            self._typed.append(event)
            if not self._key_pending and not self.keys_held:
                await self._handle_next_key()
            return
        await super().on_event(event)

    async def _handle_next_key(self) -> None:
        if not self._typed:
            return
        self._key_pending = True
        self._key_number += 1
        event = self._typed.popleft()
        target: MessagePump = self.focused or self.screen
        await super().on_event(event)
        self._follow(target, settled=False)

    def _follow(self, target: MessagePump, *, settled: bool) -> None:
        """Send a mark after the key: to where the key went, then to the screen that is on top once it has acted."""
        number = self._key_number
        if not target.post_message(KeyHandled(number, settled)):
            self.call_later(self._key_done, number)
            return
        self.set_timer(LOST_AFTER_S, lambda: self._key_done(number))

    async def on_key_handled(self, message: KeyHandled) -> None:
        message.stop()
        if message.number != self._key_number:
            return
        if message.settled:
            await self._key_done(message.number)
        else:
            self._follow(self.screen, settled=True)  # answered once a screen that was opened is mounted

    async def _key_done(self, number: int) -> None:
        if self._key_pending and number == self._key_number:
            self._key_pending = False
            await self._handle_next_key()
