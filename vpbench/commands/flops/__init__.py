"""Count multiply-accumulates, without weights or data."""
