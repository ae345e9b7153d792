"""Keeping a registry sound and small: collection, scrubbing, checks, backup, retention."""
