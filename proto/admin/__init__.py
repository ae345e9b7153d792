"""Versions of the admin contract."""
