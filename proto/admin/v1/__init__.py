"""`switchyard.admin.v1`, generated; `make proto` rewrites it."""
