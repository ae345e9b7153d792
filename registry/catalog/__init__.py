"""What versions are called and what is known of them: names, aliases, states, tags, statements."""
