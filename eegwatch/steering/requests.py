"""Requests to a script: the commands, the properties of RunLog that report them, and the steps for which they hold."""

from __future__ import annotations

from dataclasses import dataclass

REQUESTS = {"stop": "stop_requested", "checkpoint": "checkpoint_requested", "evaluate": "evaluation_requested"}


@dataclass
class SharedRequest:
    """A request of all ranks of a job, from the look after step `first` on.

    A stop holds from there on; a checkpoint or an evaluation at the first look alone, since the other ranks do not hear
    when rank 0 has done it. So it is true on every rank at the same looks, if their scripts look at the same steps.
    """

    first: int
    looked: int | None = None  # the step of the first look

    def at(self, command: str, step: int) -> bool:
        """Whether it holds when the script reads it after this step."""
        if step < self.first:
            return False
        if self.looked is None:
            self.looked = step
        return command == "stop" or step == self.looked
