"""Weights files: reading, recognising, loading strictly; nothing in them is executed."""
