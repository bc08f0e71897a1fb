"""A last message that goes on: rendered as transformers has it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from basert.errors import InvalidRequest
from basert.text.continuing import left_open
from basert.text.template import ChatTemplate
from tests.tiny import TEMPLATE

TRIMMING = TEMPLATE.replace("message['content']", "message['content'] | trim")
USER = {"role": "user", "content": "Count to five."}


def ours(source: str, messages: list[dict[str, Any]]) -> str:
    return left_open(ChatTemplate(source, {}).render, messages, {"add_generation_prompt": False})


@pytest.mark.parametrize("source", [TEMPLATE, TRIMMING])
@pytest.mark.parametrize("content", ["One, two,", "One, two, ", "  One\n\ntwo\n", "Count to five."])
def test_the_prompt_ends_where_the_message_does(source: str, content: str) -> None:
    messages = [USER, {"role": "assistant", "content": content}]
    theirs, _ = render_jinja_template([messages], chat_template=source, continue_final_message=True)
    assert ours(source, messages) == theirs[0]
    end = content.strip() if source == TRIMMING else content
    assert theirs[0].endswith(f"<|im_start|>assistant\n{end}")


def test_a_template_that_drops_the_message_is_told_of() -> None:
    with pytest.raises(InvalidRequest, match="leaves out the last message"):
        ours("{{ messages[0].content }}", [USER, {"role": "assistant", "content": "One"}])
