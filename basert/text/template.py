"""Chat templates: messages to the text a model was trained on. Knows Jinja, no tokens and no wire types."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta

from basert.errors import InvalidRequest
from basert.text.budget import budget
from basert.text.sandbox import TemplateEnvironment

SLOW_SECONDS = 0.05


class ChatTemplate:
    """One bundle's template. Compiled when first used, so that a broken one still lets completions work."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """special_tokens: what the template may name, such as `bos_token`."""
        self.source = source
        self._special_tokens = special_tokens
        self.is_slow = False  # it has once taken long

    @cached_property
    def knows_tools(self) -> bool:
        """Whether it names `tools`; a broken template knows nothing."""
        try:
            return "tools" in meta.find_undeclared_variables(TemplateEnvironment().parse(self.source))
        except TemplateSyntaxError:
            return False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """As transformers' apply_chat_template does. Raises InvalidRequest with what the template says.

        Messages and tools are plain JSON data; kwargs are the template's own options.
        """
        given = {
            **self._special_tokens,
            **kwargs,
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        started = time.perf_counter()
        try:
            with budget():
                return self._template.render(given)
        except TemplateError as error:
            raise _refused(error.message or type(error).__name__) from None
        except RecursionError:
            raise _refused("the chat template calls itself too deeply") from None
        except Exception as error:  # a template's TypeError, ZeroDivisionError, … are the template's own
            raise _refused(f"{type(error).__name__}: {error}") from None
        finally:
            self.is_slow |= time.perf_counter() - started > SLOW_SECONDS

    @cached_property
    def _template(self) -> Template:
        try:
            return TemplateEnvironment().from_string(self.source)
        except TemplateSyntaxError as error:
            raise TemplateError(f"line {error.lineno} of it is wrong: {error.message}") from None


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"The model's chat template refused these messages: {why}", param="messages")
