"""`switchyard.inference.v1`, generated; `make proto` rewrites it."""
