"""What people and tools say about a version: signatures, evaluations, approvals, provenance."""
