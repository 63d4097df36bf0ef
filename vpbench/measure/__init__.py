"""Clock, memory and machine: what is measured, each usable alone."""
