"""Intervals, tests and Pareto metrics, and the rows they are computed from."""
