"""What is made of published adapters without a running server: compositions as versions, merged bases."""
