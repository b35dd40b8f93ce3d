"""Members and what they do within an interval."""
