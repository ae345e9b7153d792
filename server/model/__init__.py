"""The base model: loading in NF4, forward pass, KV cache, sampling."""
