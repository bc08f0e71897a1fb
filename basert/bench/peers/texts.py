"""Prompts that are about something: text that repeats itself, and questions as people ask them."""

from __future__ import annotations

from dataclasses import dataclass

from basert.errors import InvalidRequest
from basert.text.tokenizer import TextModel

PASSAGES = (
    "The valve opens when the pressure reaches four bar. It stays open until the pressure has fallen below"
    " three, and a spring then closes it. Check the spring once a year, clean the seat with a dry cloth, and"
    " write the date of the check on the label beside the handle.",
    "def area(shape):\n    if shape.kind == 'circle':\n        return 3.14159 * shape.radius ** 2\n"
    "    if shape.kind == 'square':\n        return shape.side ** 2\n    if shape.kind == 'triangle':\n"
    "        return shape.base * shape.height / 2\n    raise ValueError('unknown shape: ' + shape.kind)\n",
    '{"name": "harbour", "open": true, "boats": 14, "tide": "rising"}\n'
    '{"name": "river", "open": false, "boats": 3, "tide": "none"}\n'
    '{"name": "island", "open": true, "boats": 27, "tide": "falling"}\n',
)
QUESTIONS = (
    "How does a sailing boat manage to move against the wind?",
    "Write a short letter to a neighbour whose parcel was delivered to me by mistake.",
    "What should I look at before I buy a second-hand bicycle?",
)
COPIES = 3


@dataclass(frozen=True)
class Texts:
    """Token ids of prompts."""

    repeating: list[list[int]]  # their likeliest continuation has stood there before
    chat: list[list[int]]

    @classmethod
    def of(cls, text: TextModel) -> Texts:
        """A model without a chat template gets the questions as they are."""
        repeating = ["\n".join([passage] * COPIES) + "\n" for passage in PASSAGES]
        chat = [_rendered(text, question) for question in QUESTIONS]
        return cls(*([text.encode(one, add_special=False) for one in some] for some in (repeating, chat)))


def _rendered(text: TextModel, question: str) -> str:
    try:
        return text.render([{"role": "user", "content": question}])
    except InvalidRequest:  # there is no template
        return question + "\n"
