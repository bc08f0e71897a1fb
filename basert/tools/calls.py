"""Where calls are in an answer: after a trigger in free text, or from its first character on.

What turns out to be no call is text; nothing is lost but whitespace around calls, and a call that was cut off
before it had told its name. Knows no format.
"""

from __future__ import annotations

from collections.abc import Sequence

from basert.text.parts import Text
from basert.text.source import SPACE, Malformed, Reading, Script, Source


def calls_in_text(
    source: Source, triggers: Sequence[str], group: Script, *, belonging: Sequence[str] = ()
) -> Reading[None]:
    """Text in which each of these triggers begins a group of calls; `group` reads what follows it, or, if it
    belongs to the group itself, from it on."""
    while trigger := (yield from _prose(source, [*triggers, *belonging])):
        before = source.keep()
        yield from source.skip()
        after = source.at + len(trigger)
        source.at += 0 if trigger in belonging else len(trigger)
        if (yield from _begins_call(source, group)):
            yield from source.skip()
        elif source.starved:
            source.at = len(source.text)
        else:
            source.at = after
            yield Text(source.text[before:after])
        source.kept = False


def calls_or_text(source: Source, group: Script) -> Reading[None]:
    """An answer that is a group of calls from its first character on, or text and nothing else."""
    before = source.keep()
    yield from source.skip()
    if (yield from _begins_call(source, group)):
        yield from source.skip()
    else:
        source.at = before
    source.kept = False
    yield from _prose(source, ())


def _begins_call(source: Source, group: Script) -> Reading[bool]:
    begun = source.calls
    try:
        yield from group(source)
    except Malformed:
        if source.ended and source.calls > begun:
            source.at = len(source.text)  # half a marker of a call that was cut off is no text
    return source.calls > begun


def _prose(source: Source, triggers: Sequence[str]) -> Reading[str]:
    """Say what comes before the first trigger, but for whitespace directly before it. Answers the trigger,
    which is not read yet, or "" at the end."""
    while True:
        at, trigger = source.first(triggers, ended=source.ended)
        said = source.text[source.at : at]
        if trigger or not source.ended:
            said = said.rstrip(SPACE)
        if said:
            source.at += len(said)
            yield Text(said)
        if trigger or source.ended:
            return trigger
        yield from source.more()
