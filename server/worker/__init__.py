"""The resident model in a process of its own: the engine never shares an interpreter with its callers.

The server process keeps everything that callers touch: sockets, names, text,
metrics. The worker process keeps the base, the adapters and the step loop. One
socket pair joins them, and either end that closes ends the other side.
"""
