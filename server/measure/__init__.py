"""Measuring a server on the machine at hand: `switchyard bench`."""
