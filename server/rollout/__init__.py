"""What this server sees of rollouts, and how it tells and follows what all servers saw."""
