"""`integrated` and `smooth`: modes along a path, and under noise."""
