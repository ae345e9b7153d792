"""What an adapter is, where it lives, what it is called. A pure library without torch and grpc."""
