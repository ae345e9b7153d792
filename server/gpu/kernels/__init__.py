"""The Triton source: one module per operation."""
