"""Any causal language model of transformers, run through its own modules."""
