"""The trainer process: one attempt at one run, from the checkpoint it starts at to its `end` record."""
