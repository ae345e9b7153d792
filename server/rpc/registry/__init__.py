"""The registry over gRPC: one module per noun, put together in `servicer`."""
