"""Segments: who they are, what is asked of the logs for them, how they are read, and what is done with them."""
