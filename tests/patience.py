"""How long a test waits for what comes within seconds: a machine that is shared may take its time."""

PATIENCE_S = 180.0
