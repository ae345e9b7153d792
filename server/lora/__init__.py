"""Batched LoRA arithmetic: one op, several backends, one float32 oracle."""
