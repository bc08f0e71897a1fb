"""Thoughts: how models mark them, and a reader that tells them from the answer."""
