"""The gate: what an adapter is worth on rows that it never saw, and whether that is enough to publish it."""
