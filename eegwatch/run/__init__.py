"""A run as it lies on disk: what the daemon and the monitor share, and the only place that knows the file format."""
