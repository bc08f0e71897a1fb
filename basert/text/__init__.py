"""Text on either side of an engine: tokens, chat templates, incremental decoding, stop strings."""

from basert.text.tokenizer import TextModel, load

__all__ = ["TextModel", "load"]
