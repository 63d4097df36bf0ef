"""Where methods still look for a detector's parts."""
