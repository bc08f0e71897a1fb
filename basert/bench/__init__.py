"""Measuring a server as its clients see it: over HTTP, with prompts of exact token counts."""
