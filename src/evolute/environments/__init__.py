"""Environments as everybody else sees them."""
