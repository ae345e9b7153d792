"""Tests of what must be the same on every database."""

from __future__ import annotations

import pytest

on_both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
"""Runs a test, or all tests of a module, on SQLite and on PostgreSQL."""
