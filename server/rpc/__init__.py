"""gRPC faces: servicers that convert, call and convert back; one error table."""
