"""`switchyard.registry.v1`, generated; `make proto` rewrites it."""
