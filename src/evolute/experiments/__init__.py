"""Experiments as data: the paper's, its controls, and anyone's own grid of environments, arms and seeds."""
