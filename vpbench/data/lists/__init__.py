"""What datasets on the user's disk share: where they are, how their lists are read, which files they have."""
