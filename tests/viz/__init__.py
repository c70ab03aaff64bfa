"""Pictures: what is drawn, and how it looks in a real browser."""
