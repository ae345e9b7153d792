"""The multi-adapter inference server; `main` composes its rooms."""
