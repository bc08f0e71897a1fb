"""basert: HTTP, text and processes. It loads no model runtime: engines do, each in a process of its own."""

__version__ = "0.1.0"
