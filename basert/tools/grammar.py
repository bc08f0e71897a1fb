"""A whole answer as a llguidance Lark grammar: a thought perhaps, then text and calls. Knows no details."""

from __future__ import annotations

from collections.abc import Sequence

from basert.reasoning.format import ThinkFormat
from basert.tools.format import Channelled, Format, Marker, Tool
from basert.tools.lark import TEXT, is_token, quote, regex, until

# Free text where a thought or a call is told by how the answer begins.
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
    text: str = "",
) -> str:
    """The grammar of an answer that may, or if required has to, call these tools.

    text: a grammar that an answer without calls has to fit; then there is no text beside calls.

    required: calls and no text; one call, or with parallel one or more. Otherwise text in which the trigger
    begins calls, at most one if not parallel. think: a thought may come first; opened: the prompt has begun
    one, so it does. Raises InvalidRequest for a schema that the format cannot be held to.
    """
    if isinstance(form, Channelled):
        return _text([f"start: {form.answer(tools, marker, required=required)}"])
    lines = _thought(think, marker, opened=opened) if think else []
    free = TEXT
    if think and not opened and not required and not is_token(marker(think.begin)):
        free = _UNTHOUGHT.format(begin=regex(think.begin))
        lines.append(free)
    first = "" if think is None else "thought " if opened else "thought? "
    body, *rules = form.body(tools, marker, parallel=parallel).split("\n")
    lines += [f"start: {first}answer", f"body: {body}", TEXT, *rules]
    text = free.partition(":")[0]
    if required:
        lines += _required(form, marker, parallel=parallel)
    elif form.whole:
        lines += _whole(form, marker, text)
    else:
        lines += _auto(form, marker, text, parallel=parallel)
    return _text(lines)


def _text(lines: Sequence[str]) -> str:
    return "\n".join(["%llguidance {}", *lines, ""])


def _thought(think: ThinkFormat, marker: Marker, *, opened: bool) -> list[str]:
    begin = "" if opened else f"{marker(think.begin)} "
    return [f"thought: {begin}thinking /\\n{{1,2}}/?", until("thinking", marker(think.end))]


def _required(form: Format, marker: Marker, *, parallel: bool) -> list[str]:
    if not parallel or form.separator is None:
        return ["answer: group", f"group: {marker(form.trigger)} body"]
    separator = f"{quote(form.separator)} " if form.separator else ""
    return [f"answer: group ({separator}group)*", f"group: {marker(form.trigger)} body"]


def _whole(form: Format, marker: Marker, text: str) -> list[str]:
    """Text that does not begin as a call does, or a call."""
    first = _UNCALLED.format(first=regex(form.trigger))
    allowed = "UNCALLED" if text == "TEXT" else f"FREE\nFREE: UNCALLED & {text}"
    return [f"answer: {marker(form.trigger)} body | {allowed}", first]


def _auto(form: Format, marker: Marker, text: str, *, parallel: bool) -> list[str]:
    """Text, and groups of calls with text between; after a single call nothing more."""
    head, more = until("head", marker(form.trigger), text), until("more", marker(form.trigger))
    if parallel:
        return [f"answer: {text} | head body (more body)* TEXT", head, more]
    return [f"answer: {text} | head body", head]
