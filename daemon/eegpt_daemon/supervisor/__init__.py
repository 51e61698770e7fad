"""The light process that lives on, obeys the control file and guards the trainer. It never imports torch."""
