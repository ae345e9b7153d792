"""`switchyard demo`: every room, driven through the commands that anybody can type."""
