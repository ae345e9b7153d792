"""Jobs: runs from object store to object store, on machines that may be gone at any time."""
