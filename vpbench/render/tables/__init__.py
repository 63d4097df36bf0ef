"""Tables for people, from rows."""
