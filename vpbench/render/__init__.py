"""Rows become tables, figures, pages and pictures. Loads no torch."""
