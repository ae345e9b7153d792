"""Python client, synchronous and asyncio, and the command line."""
