"""What is stored, and what follows from it. Loads no torch."""
