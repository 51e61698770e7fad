"""The schedule that a log is judged by where its own run record has none: from a line, a configuration, or files."""
