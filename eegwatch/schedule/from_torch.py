"""A scheduler object read as a declared schedule: `read` for its first parameter group, `read_groups` for all.

>>> from_torch.read(torch.optim.lr_scheduler.StepLR(optimizer, 30), total_steps=90)
{'name': 'step', 'total_steps': 90, 'max_lr': 0.01, 'step_size': 30, 'gamma': 0.1}
"""

from eegwatch.schedule.readers import Reading, read, read_groups, reading_of

__all__ = ["Reading", "read", "read_groups", "reading_of"]
