"""Who may do what: principals, their grants, and the tokens that prove them."""
