"""A whole answer as a llguidance Lark grammar: a thought perhaps, then text and calls. Knows no details."""

from __future__ import annotations

from collections.abc import Sequence

from basert.reasoning.format import ThinkFormat
from basert.tools.format import Channelled, Format, Marker, Tool
from basert.tools.lark import TEXT, is_token, quote, regex, until

# Free text where a thought, or a call, is told by how the answer begins.
_UNTHOUGHT = "UNTHOUGHT: /(.|\\n)*/ & ~/[ \\n]*{begin}(.|\\n)*/"
_UNCALLED = "UNCALLED: /([ \\n]*[^ \\n{first}](.|\\n)*)?/"


def grammar(
    form: Format,
    tools: Sequence[Tool],
    marker: Marker,
    *,
    required: bool,
    parallel: bool,
    think: ThinkFormat | None = None,
    opened: bool = False,
) -> str:
    """The grammar of an answer that may, or if required has to, call these tools.

    required: calls and no text; one call, or with parallel one or more. Otherwise text in which the trigger
    begins calls, at most one if not parallel. think: a thought may come first; opened: the prompt has begun
    one, so it does. Raises InvalidRequest for a schema that the format cannot be held to.
    """
    if isinstance(form, Channelled):
        return _joined([f"start: {form.answer(tools, marker, required=required)}"])
    body, *rules = form.body(tools, marker, parallel=parallel).split("\n")
    lines = [*_start(think, marker, opened=opened), f"body: {body}", *rules, TEXT]
    if required:
        return _joined(lines + _required(form, marker, parallel=parallel))
    text = "TEXT"
    if think and not opened and not is_token(marker(think.begin)):
        text = "UNTHOUGHT"
        lines.append(_UNTHOUGHT.format(begin=regex(think.begin)))
    answer = _whole(form, marker, text) if form.whole else _auto(form, marker, text, parallel=parallel)
    return _joined(lines + answer)


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(["%llguidance {}", *lines, ""])


def _start(think: ThinkFormat | None, marker: Marker, *, opened: bool) -> list[str]:
    if think is None:
        return ["start: answer"]
    begin = "" if opened else f"{marker(think.begin)} "
    return [
        f"start: {'thought' if opened else 'thought?'} answer",
        f"thought: {begin}thinking /\\n{{1,2}}/?",
        until("thinking", marker(think.end)),
    ]


def _required(form: Format, marker: Marker, *, parallel: bool) -> list[str]:
    group = f"group: {marker(form.trigger)} body"
    if not parallel or form.separator is None:
        return ["answer: group", group]
    return [f"answer: group ({quote(form.separator)} group)*", group]


def _whole(form: Format, marker: Marker, text: str) -> list[str]:
    """A call, or text that does not begin as one does."""
    free = f"FREE: UNCALLED & {text}"
    return [
        f"answer: {marker(form.trigger)} body | FREE",
        free,
        _UNCALLED.format(first=regex(form.trigger)),
    ]


def _auto(form: Format, marker: Marker, text: str, *, parallel: bool) -> list[str]:
    """Text, and groups of calls with text between; after a single call nothing more."""
    head, more = until("head", marker(form.trigger), text), until("more", marker(form.trigger))
    if parallel:
        return [f"answer: {text} | head body (more body)* TEXT", head, more]
    return [f"answer: {text} | head body", head]
