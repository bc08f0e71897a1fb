"""The real SmolLM2: prompts and texts are those of transformers, token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from basert import text
from basert.text import TextModel

CONVERSATIONS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": 'You speak <b>only</b> in "rhymes" & l\'été.\n'},
        {"role": "user", "content": "  Hé 🌍!\n\n\tdef f(x):\n    return x  "},
        {"role": "assistant", "content": "日本語 <|endoftext|> 👩‍👩‍👧"},
        {"role": "user", "content": ""},
    ],
]
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "naïve café — “quotes” 12345",
    "日本語テキスト 🌍👩‍👩‍👧",
    "a\r\n\tb  c",
    "<|im_start|>user",
]


@pytest.fixture(scope="module")
def ours(smollm2_w8a8: Path) -> TextModel:
    return text.load(smollm2_w8a8)


@pytest.fixture(scope="module")
def theirs(smollm2_w8a8: Path) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(smollm2_w8a8 / "tokenizer.json"))
    tokenizer.chat_template = (smollm2_w8a8 / "chat_template.jinja").read_text()
    return tokenizer


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
def test_conversations(
    ours: TextModel, theirs: PreTrainedTokenizerFast, messages: list[dict[str, str]], prompt: bool
) -> None:
    rendered = ours.render(messages, add_generation_prompt=prompt)
    assert rendered == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=True)["input_ids"]
    assert ours.encode(rendered, add_special=False) == wanted


@pytest.mark.parametrize("plain", TEXTS)
def test_texts_there_and_back(ours: TextModel, theirs: PreTrainedTokenizerFast, plain: str) -> None:
    ids = ours.encode(plain)
    assert ids == theirs(plain)["input_ids"]
    assert (
        ours.decode(ids, skip_special=False)
        == plain
        == theirs.decode(ids, clean_up_tokenization_spaces=False)
    )
