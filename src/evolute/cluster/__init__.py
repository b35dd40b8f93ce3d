"""Several machines, by Ray: an extra that the rest of the code does not know."""
