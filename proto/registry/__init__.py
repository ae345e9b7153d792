"""Versions of the registry contract."""
