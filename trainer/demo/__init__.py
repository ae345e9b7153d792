"""The demo: a base model that the project pre-trains itself and two tasks that adapters learn on it."""
