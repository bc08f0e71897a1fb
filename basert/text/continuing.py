"""A conversation whose last message is to go on: rendered so that it stays open. Knows no tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from basert.errors import InvalidRequest

_MARK = "⟪the message goes on here⟫"


def left_open(
    render: Callable[..., str], messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
) -> str:
    """What `render` makes of the messages, up to the end of the last one's content.

    What a template does to the end of a message is seen by a mark and a space behind it: one that strips
    the space would have stripped the content's own. Raises InvalidRequest.
    """
    *earlier, last = messages
    text = render([*earlier, {**last, "content": f"{last['content']}{_MARK} "}], **arguments)
    before, mark, after = text.rpartition(_MARK)
    if not mark:
        raise InvalidRequest(
            "The model's chat template leaves out the last message, which therefore cannot be continued.",
            param="continue_final_message",
        )
    return before if after.startswith(" ") else before.rstrip()
