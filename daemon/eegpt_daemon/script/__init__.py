"""A training script of the user's under the daemon: its commands, its output, its checkpoints, its log. No torch."""
