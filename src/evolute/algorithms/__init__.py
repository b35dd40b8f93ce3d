"""What a member learns by."""
