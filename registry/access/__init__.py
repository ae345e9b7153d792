"""Who may do what: principals, tokens, scopes and resource patterns."""
