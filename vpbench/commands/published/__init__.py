"""Published figures beside what is counted here and what was measured here."""
