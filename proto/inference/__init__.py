"""Versions of the inference contract."""
