"""Pictures of what methods do to the tokens of a clip."""
