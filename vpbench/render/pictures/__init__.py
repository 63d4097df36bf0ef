"""Pictures of tokens."""
