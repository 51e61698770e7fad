"""Real loops of the frameworks that people use, healthy and broken, through RunLog, the callbacks and `check`."""
