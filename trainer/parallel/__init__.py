"""One run in several processes: how they are started, what they agree on, and what they share."""
