"""Grammars against real tokenizers: one token per byte, and markers as special tokens or as plain text."""

from __future__ import annotations

import random
from pathlib import Path

from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from basert.tools.lark import quote

END = "<|endoftext|>"


class Bytes:
    """A tokenizer of single bytes, with these special tokens."""

    def __init__(self, folder: Path, special: list[str]) -> None:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(
            models.BPE(vocab={char: token for token, char in enumerate(alphabet)}, merges=[])
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([END, *special])
        path = folder / "tokenizer.json"
        tokenizer.save(str(path))
        self._special = {tokenizer.token_to_id(text): text for text in special}
        self._ids = {text: token for token, text in self._special.items()}
        self._end = tokenizer.token_to_id(END)
        self.tokens = LLTokenizer(str(path), eos_token=self._end)
        self._ascii = set(self.tokens.tokenize_str("".join(map(chr, range(32, 127))) + "\n"))

    def marker(self, text: str) -> str:
        return f"<[{self._ids[text]}]>" if text in self._ids else quote(text)

    def accepts(self, grammar: str, answer: str) -> bool:
        matcher = LLMatcher(self.tokens, grammar, log_level=0)
        ids = self.tokens.tokenize_str(answer, parse_special=True)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    def walk(self, grammar: str, random: random.Random, limit: int = 1000) -> tuple[str, bool]:
        """A random answer that the grammar allows, and whether it came to its end."""
        matcher = LLMatcher(self.tokens, grammar, log_level=0)
        assert not matcher.get_error()
        ids: list[int] = []
        while len(ids) < limit and not matcher.is_stopped():
            bits = int.from_bytes(matcher.compute_bitmask(), "little")
            allowed = [token for token in range(self.tokens.vocab_size) if bits >> token & 1]
            ids.append(random.choice(self._likely(allowed, random)))
            assert matcher.consume_token(ids[-1])
        whole = matcher.is_stopped()
        return self._decode([token for token in ids if token != self._end]), whole

    def _likely(self, allowed: list[int], random: random.Random) -> list[int]:
        """Plain ASCII, so that strings hold what looks like marks; and now and then a marker, to end them."""
        marks = [token for token in allowed if token in self._special or token == self._end]
        if marks and random.random() < 0.1:
            return marks
        return [token for token in allowed if token in self._ascii] or allowed

    def _decode(self, ids: list[int]) -> str:
        raw = b"".join(
            self._special[token].encode() if token in self._special else self.tokens.decode_bytes([token])
            for token in ids
        )
        return raw.decode(errors="ignore")
