"""The trainer daemon: trains EEGPT probes, writes structured logs, obeys the control file."""
