"""Several adapters become one: the combination types of PEFT, computed the same on every machine."""
