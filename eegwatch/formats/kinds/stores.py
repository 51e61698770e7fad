"""Stores that hold the values of a run in a form of their own."""

from eegwatch.formats.table import Kind

KINDS: tuple[Kind, ...] = ()
