"""From logits to tokens: penalties, masks, filters, draws, logprobs and structured answers."""
