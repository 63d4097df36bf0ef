"""The user's own copy of a dataset: looked through for what is missing or broken, and made ready for runs."""
