"""Recipes that made the weights which come with the package."""
