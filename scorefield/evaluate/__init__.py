"""Measures of samples, of networks and of solvers."""
