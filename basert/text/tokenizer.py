"""All that is text of one model: its tokenizer and its chat template, read from a bundle.

Knows ids and characters; no engine, no requests. Everything here is synchronous, and encode and render may
take long: `is_quick` says when to call them in a thread (tokenizing gives up the interpreter lock meanwhile).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from basert.errors import BundleError, InvalidRequest
from basert.manifest import CHAT_TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, read_manifest
from basert.text.cutting import Cut, Ids, Text, shortened
from basert.text.decoder import Decoder
from basert.text.template import ChatTemplate
from basert.text.vocabulary import Vocabulary

# Before the text that comes first, before the one that comes last, and before what goes between them.
INFILL = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
)
QUICK = 2000  # characters: a quarter of a millisecond; a thread costs as much


class TextModel:
    """Text to ids and back."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None) -> None:
        """Raises BundleError when the tokenizer's decoder cannot be streamed."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._template = template
        self._vocabulary = Vocabulary(tokenizer)
        # Most characters that one token stands for: a text of n has at least n / longest_token tokens.
        longest = max(map(len, tokenizer.get_vocab()), default=1)
        self.longest_token = longest if self._vocabulary.loses_nothing else sys.maxsize

    @property
    def template_source(self) -> str:
        """The chat template as it is written; "" if there is none."""
        return self._template.source if self._template else ""

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template does anything with `tools`."""
        return self._template is not None and self._template.knows_tools

    def is_quick(self, characters: int) -> bool:
        """Whether rendering and encoding so long a text takes less time than handing it to a thread would."""
        return characters < QUICK and (self._template is None or not self._template.is_slow)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids. add_special: with what the tokenizer puts around a text (a beginning-of-sequence)."""
        encoding = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special)[0]
        return list(encoding.ids)

    def encode_batch(self, texts: Sequence[Text], cut: Cut | None = None, *, add_special: bool = True) -> Ids:
        """Texts or pairs of texts, all at once. cut: what becomes of those that are too long."""
        made = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special)
        long = [i for i, encoding in enumerate(made) if cut is not None and len(encoding) > cut.most]
        if cut is not None and long:
            short = shortened(self._tokenizer, [texts[i] for i in long], cut, add_special=add_special)
            for i, encoding in zip(long, short, strict=True):
                made[i] = encoding
        return Ids([one.ids for one in made], [one.type_ids for one in made], len(long))

    @property
    def special_tokens(self) -> int:
        """How many are put around a text."""
        return self._tokenizer.num_special_tokens_to_add(False)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str:
        """All of the text at once; bytes that are no text become U+FFFD."""
        decoder = self.decoder(skip_special=skip_special, continues=continues)
        return decoder.push(ids) + decoder.flush()

    def decoder(
        self, *, skip_special: bool = True, continues: bool = False, keep: Sequence[str] = ()
    ) -> Decoder:
        """A fresh incremental decoder. continues: it keeps the leading space of a text that follows another;
        keep: special tokens, by their text, that are not skipped."""
        kept = {token for marker in keep if (token := self.special_id(marker)) is not None}
        return Decoder(self._vocabulary, skip_special=skip_special, continues=continues, keep=kept)

    def marker_id(self, marker: str) -> int | None:
        """The token that is written so, if grammars take it for a marker and not for text: a special one, or
        (as llguidance has it) an added one in angle brackets."""
        added = self._vocabulary.added.get(marker)
        bracketed = marker.startswith("<") and marker.endswith(">")
        return added if added is not None and bracketed else self.special_id(marker)

    def special_id(self, marker: str) -> int | None:
        """The special token that is written so; None if these characters are no token or an ordinary one."""
        token = self._tokenizer.token_to_id(marker)
        return token if token is not None and self._vocabulary.is_special(token) else None

    def is_special(self, token: int) -> bool:
        return self._vocabulary.is_special(token)

    def infill(self, prefix: Sequence[int], suffix: str) -> list[int] | None:
        """The prompt for what belongs between two texts; None for a model that has no tokens for that."""
        for marks in INFILL:
            begin, hole, end = map(self._tokenizer.token_to_id, marks)
            if begin is not None and hole is not None and end is not None:
                return [begin, *prefix, hole, *self.encode(suffix, add_special=False), end]
        return None

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one token, possibly part of a character; nothing for an unknown id."""
        return self._vocabulary.token_bytes(token)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt of a conversation; encode it with add_special=False, the template has put all that in.

        Raises InvalidRequest when there is no template, or with what the template says.
        """
        if self._template is None:
            raise InvalidRequest("This model has no chat template; use /v1/completions.", param="model")
        return self._template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, **kwargs
        )


def load(bundle: Path) -> TextModel:
    """Read a bundle's tokenizer and template. Raises BundleError."""
    path = bundle / TOKENIZER
    if not path.is_file():
        raise BundleError(f"{bundle} has no {TOKENIZER}; export the model again.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise BundleError(f"{path} cannot be read ({error}); export the model again.") from None
    source = bundle / CHAT_TEMPLATE
    template = None
    if source.is_file():
        template = ChatTemplate(source.read_text(encoding="utf-8"), _special_tokens(bundle, tokenizer))
    return TextModel(tokenizer, template)


def _special_tokens(bundle: Path, tokenizer: Tokenizer) -> dict[str, str]:
    """What templates may name: from tokenizer_config.json, else as far as the manifest tells."""
    path = bundle / TOKENIZER_CONFIG
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: token["content"] if isinstance(token, dict) else token
            for name, token in config.items()
            if name.endswith("_token") and isinstance(token, str | dict)
        }
    manifest = read_manifest(bundle)
    ids = {"bos_token": manifest.bos_token_id, "eos_token": next(iter(manifest.eos_token_ids), None)}
    found = {name: tokenizer.id_to_token(token) for name, token in ids.items() if token is not None}
    return {name: text for name, text in found.items() if text is not None}
