"""How a version comes to be: upload sessions and the one commit."""
