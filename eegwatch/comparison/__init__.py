"""Runs compared by their predictions: differences, paired intervals, and whether the data can tell them apart."""

from __future__ import annotations
