"""Adapters in memory: residency, loading, packing, device slots, composition."""
