"""Text generation and the relevance of its tokens."""
