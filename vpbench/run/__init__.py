"""When what is done: freeze, work, finish."""
