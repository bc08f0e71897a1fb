"""A whole answer as a grammar for llguidance: a thought perhaps, then text and calls. Knows no details."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from basert.errors import InvalidRequest
from basert.reasoning.format import ThinkFormat
from basert.tools.format import Channelled, Format, Marker, Tool
from basert.tools.lark import TEXT, is_token, quote, regex, until

MOST_CALLS = 16  # groups of calls in an answer: small models make the same one over and over

# Free text where a thought, or a call, is told by how the answer begins.
_UNTHOUGHT = "UNTHOUGHT: /(.|\\n)*/ & ~/[ \\n]*{begin}(.|\\n)*/"
_PLAIN = "plain"  # the name of the grammar of an answer without calls
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
    plain: str = "",
) -> str:
    """The grammar of an answer that may, or if required has to, call these tools.

    required: calls and no text; one call, or with parallel one or more. Otherwise text in which the trigger
    begins calls, at most one if not parallel. think: a thought may come first; opened: the prompt has begun
    one, so it does. plain: a grammar (as requests have them) that an answer without calls has to fit. Raises
    InvalidRequest for a schema that the format cannot be held to.
    """
    if isinstance(form, Channelled):
        answer = form.answer(tools, marker, required=required, final=f"@{_PLAIN}" if plain else "TEXT")
        lines = [f"start: {answer}"]
        return _with_plain(lines, plain) if plain and not required else _joined(lines)
    body, *rules = form.body(tools, marker, parallel=parallel).split("\n")
    lines = [*_start(think, marker, opened=opened), f"body: {body}", *rules, TEXT]
    if required:
        return _joined(lines + _required(form, marker, parallel=parallel))
    if plain:
        answer, *groups = _required(form, marker, parallel=parallel)
        return _with_plain([*lines, f"{answer} | @{_PLAIN}", *groups], plain)
    text = "TEXT"
    if think and not opened and not is_token(marker(think.begin)):
        text = "UNTHOUGHT"
        lines.append(_UNTHOUGHT.format(begin=regex(think.begin)))
    answers = _whole(form, marker, text) if form.whole else _auto(form, marker, text, parallel=parallel)
    return _joined(lines + answers)


def after_thought(plain: str, think: ThinkFormat, marker: Marker, *, opened: bool) -> str:
    """A grammar (as requests have them) for what comes after the thought."""
    return _with_plain([*_start(think, marker, opened=opened), TEXT, f"answer: @{_PLAIN}"], plain)


def _with_plain(lines: Sequence[str], plain: str) -> str:
    """Both grammars. Raises InvalidRequest for one that cannot stand beside another."""
    return _listed(_lark(lines), {**_only(plain), "name": _PLAIN})


def _only(plain: str) -> dict[str, Any]:
    """The grammar in a list of one."""
    try:
        [asked] = json.loads(plain)["grammars"]
        return {**asked}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidRequest(
            "Where thoughts or tool calls may come beside, a grammar has to be in Lark: neither GBNF nor a "
            "list of several."
        ) from None


def _joined(lines: Sequence[str]) -> str:
    return _listed(_lark(lines))


def _lark(lines: Sequence[str]) -> dict[str, Any]:
    return {"lark_grammar": "\n".join(lines)}


def _listed(*grammars: dict[str, Any]) -> str:
    """As requests have them."""
    return json.dumps({"grammars": grammars}, ensure_ascii=False)


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
    return [f"answer: group ({quote(form.separator)} group){{0,{MOST_CALLS - 1}}}", group]


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
        return [f"answer: {text} | head body (more body){{0,{MOST_CALLS - 1}}} TEXT", head, more]
    return [f"answer: {text} | head body", head]
