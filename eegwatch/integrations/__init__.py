"""Callbacks for training frameworks: each file imports its framework, and nothing else does."""
