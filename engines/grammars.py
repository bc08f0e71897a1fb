"""Grammars as requests send them, compiled for one model's vocabulary, and kept for those who send the same.

Compiling runs in a thread of its own, without the interpreter lock.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

from basert.errors import InvalidRequest
from engines.constraints import Constraint, Found, line, look

KEPT = 64  # compiled grammars
COMPILERS = 2  # threads: one grammar that takes long leaves one
STACK_BYTES = 512 << 20  # of the thread that compiles: 40 KB for each rule that 256 KiB of text can hold
# Of the default, the part that keeps a step of the worst regular expression tried at 60 ms instead of 750.
LEXER_FUEL = 200_000
LEXER_STATES = 20_000  # of 1 to 2 kB each, which a grammar gets as it is used
UNFORCED = '%llguidance {"no_forcing": true}'


class Grammars:
    """Compiles grammars for one model's vocabulary, and keeps the latest."""

    def __init__(self, tokenizer: Path, vocab_size: int, eos: frozenset[int]) -> None:
        """tokenizer: a tokenizer.json; read with the first grammar."""
        self.compiled = 0
        self.reused = 0
        self._path = tokenizer
        self._vocab_size = vocab_size
        self._eos = sorted(eos)
        self._tokenizer: LLTokenizer | None = None
        self._limits = LLParserLimits(
            initial_lexer_fuel=LEXER_FUEL, max_lexer_states=LEXER_STATES, verbose_errors=False
        )
        self._kept: OrderedDict[str, tuple[LLMatcher, Found]] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept, and of the tokenizer
        self._compiler = _deep_threads(COMPILERS)

    def constraint(self, grammar: str) -> Future[Constraint]:
        """A sequence's constraint, when its grammar is compiled; or InvalidRequest, with the reason."""
        if (found := self._find(grammar)) is None:
            return self._compiler.submit(self._compile, grammar)
        self.reused += 1
        ready: Future[Constraint] = Future()
        ready.set_result(found)
        return ready

    def _find(self, grammar: str) -> Constraint | None:
        with self._lock:
            if grammar not in self._kept:
                return None
            self._kept.move_to_end(grammar)
            return self._copy(*self._kept[grammar])

    def _compile(self, grammar: str) -> Constraint:
        if (found := self._find(grammar)) is not None:
            return found
        matcher = LLMatcher(self._load(), _unforced(grammar), log_level=0, limits=self._limits)
        if matcher.is_error():
            raise InvalidRequest(f"This cannot be guaranteed: {line(matcher.get_error())}.")
        first = look(matcher)
        with self._lock:
            self.compiled += 1
            self._kept[grammar] = matcher, first
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._copy(matcher, first)

    def _copy(self, matcher: LLMatcher, first: Found) -> Constraint:
        assert self._tokenizer is not None
        return Constraint(matcher.deep_copy(), first, self._tokenizer)

    def _load(self) -> LLTokenizer:
        if self._tokenizer is None:
            with self._lock:
                self._tokenizer = self._tokenizer or LLTokenizer(
                    self._path.read_text(encoding="utf-8"), n_vocab=self._vocab_size, eos_token=self._eos
                )
        return self._tokenizer


def _deep_threads(count: int) -> ThreadPoolExecutor:
    """Threads with room for recursion: llguidance goes down a chain of rules or references by calling
    itself, and on a stack of 8 MiB 3,000 of them end the process. Memory is committed as it is touched."""
    pool, begun = ThreadPoolExecutor(count, "grammars"), threading.Barrier(count)
    usual = threading.stack_size(STACK_BYTES)
    try:
        for _ in range(count):
            pool.submit(begun.wait, 10.0)  # each starts a thread, for none is idle
    finally:
        threading.stack_size(usual)
    return pool


def _unforced(grammar: str) -> str:
    """A grammar as llguidance takes it, told not to look for text without a choice: where that has no end
    (`start: /x+/ start`, an array that has to hold one like itself) it would look for ever, and nothing could
    end it."""
    try:
        asked = json.loads(grammar)["grammars"] if grammar.lstrip().startswith("{") else [_from_gbnf(grammar)]
        return json.dumps({"grammars": [_mended(one) for one in asked]})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidRequest(f"The grammar is none: {line(str(error))}.") from None


def _mended(grammar: dict[str, Any]) -> dict[str, Any]:
    """One of llguidance's grammars, in Lark, with our option behind any of its own."""
    name = {"name": grammar["name"]} if "name" in grammar else {}
    if "json_schema" in grammar:
        lark = f"start: %json {json.dumps(grammar['json_schema'])}"
    else:
        lark = grammar["lark_grammar"]
    return {**name, "lark_grammar": f"{lark}\n{UNFORCED}\n"}


def _from_gbnf(grammar: str) -> dict[str, Any]:
    try:
        return {"lark_grammar": gbnf_to_lark(grammar)}
    except Exception as error:  # whatever its parser stumbles over
        raise InvalidRequest(f"The grammar is neither Lark nor GBNF: {line(str(error))}.") from None
