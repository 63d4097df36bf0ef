"""A results folder as one HTML page: sentences that the statistics allow, plots, tables, pictures, provenance."""
