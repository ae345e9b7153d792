"""Guarded rollouts: a version gets a part of an alias's traffic, and what happens there decides about it."""
