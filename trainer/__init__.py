"""From a recipe and a dataset to a published adapter; TRL, PEFT and bitsandbytes do the training."""
