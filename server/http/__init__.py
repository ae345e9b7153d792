"""HTTP faces of the server: metrics and health."""
