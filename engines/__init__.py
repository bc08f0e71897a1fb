"""Engines: a process per model, from token ids to token ids. They know no HTTP and no text."""
