"""DeepSpeed-Chat's third step: `epoch: 0|step: 238|ppo_ep: 1|act_loss: 0.0137|cri_loss: 0.0154|unsuper_loss: 0.0`.

The actor's loss stands for the loss. DeepSpeed's own lines (`step=3710, skipped=70, lr=[…]`) are taken for those steps
where the log has no other count; here they lag, since the engines of actor and critic count apart: they are left out.
"""

from __future__ import annotations

import re

from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

_LINE = re.compile(r"epoch:\s*(\d{1,9})\s*\|\s*step:\s*(\d{1,15})\s*\|\s*ppo_ep:\s*\d+\s*\|(.*)")
_PAIR = re.compile(r"([A-Za-z_]+)\s*:\s*([-+]?[\d.]+(?:e[-+]?\d+)?|nan|-?inf)")
_REWARD = re.compile(r"^\W*average reward score:\s*([-+]?[\d.]+)")


class DeepSpeedChat:
    """Lines of the PPO loop."""

    name = "DeepSpeed-Chat"
    marks = ("ppo_ep",)

    def __init__(self) -> None:
        self._seen = False
        self._last: Row | None = None

    @property
    def active(self) -> bool:
        return self._seen

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "ppo_ep" in line and (match := _LINE.search(line)) is not None:
            self._seen = True
            row = Row()
            row.at.epoch, row.at.step = float(match[1]), float(match[2])
            for name, text in _PAIR.findall(match[3]):
                row.train["loss" if name == "act_loss" else name] = float(text)
            self._last = row
            return [row]
        if not self._seen:
            return None
        if self._last is not None and (reward := _REWARD.match(line)) is not None:
            row = Row(train={"reward": float(reward[1])})
            row.at.step, row.at.epoch = self._last.at.step, self._last.at.epoch
            return [row]
        return [] if ("skipped=" in line and "lr=[" in line) or "global_step=" in line else None
