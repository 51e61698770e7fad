"""A training script that obeys the control file while it runs: its rates, and requests to stop, save or evaluate."""
