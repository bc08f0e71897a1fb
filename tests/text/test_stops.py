"""Stop strings: the same text is released however it was cut, and never a part of a stop string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from basert.text.stops import StopMatcher

SHORT = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The plain rule: the first moment at which the text ends in a stop string, the longest such one."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def released(parts: list[str], stops: list[str]) -> tuple[str, str | None]:
    matcher, out = StopMatcher(stops), ""
    for part in parts:
        text, stopped = matcher.push(part)
        out += text
        if stopped:
            return out, stopped
    return out + matcher.flush(), None


@given(st.lists(SHORT, max_size=8), STOPS)
def test_any_cutting_releases_what_the_rule_says(parts: list[str], stops: list[str]) -> None:
    assert released(parts, stops) == expected("".join(parts), stops)


@given(SHORT, STOPS)
def test_what_is_released_never_has_to_be_taken_back(text: str, stops: list[str]) -> None:
    matcher, out = StopMatcher(stops), ""
    for char in text:
        more, stopped = matcher.push(char)
        out += more
        assert expected(text, stops)[0].startswith(out)
        if stopped:
            break


def test_no_more_is_held_back_than_may_begin_a_stop_string() -> None:
    matcher = StopMatcher(["\n\nUser:"])
    assert matcher.push("Hello\n") == ("Hello", None)
    assert matcher.push("\n") == ("", None)
    assert matcher.push("Us") == ("", None)
    assert matcher.push("ual\n\n\n") == ("\n\nUsual\n", None)
    assert matcher.push("User: hi") == ("", "\n\nUser:")
