"""Scenarios written after the rules were tuned."""
