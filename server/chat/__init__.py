"""Conversations: what they consist of, how a template makes a prompt of one, and what an answer says in turn."""
