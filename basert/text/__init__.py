"""Text <-> ids: tokenizer, chat template, incremental decoder, stop strings."""
