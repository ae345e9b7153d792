"""Whether files that somebody sent can become a version: the gate, the checks, and the process they run in."""
