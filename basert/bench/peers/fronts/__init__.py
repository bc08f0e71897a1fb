"""OpenAI fronts for libraries without one. They run in a peer's environment: aiohttp and tokenizers."""
