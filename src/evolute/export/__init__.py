"""Policies and replay in the forms of other libraries."""
