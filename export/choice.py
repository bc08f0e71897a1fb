"""Which variant `auto` means: built and measured on this host. Decides; builds and measures nothing itself.

    w8a8, unless int4 is faster by more than MARGIN in the geometric mean of a decode step of one row, one of
    eight, and a prefill; then the parity gate, and what fails it makes room for the next; fp32 comes last

The margin is what w8a8 has for being nearer to the checkpoint. Where building both would cost too much, and
on CPUs without fast 8-bit products, nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from basert.errors import ExportError
from engines.sessions.instructions import integer_products
from export.speed import CONTEXT, PREFILL, ROWS, Speed
from export.variants import VARIANTS

LARGEST = 6 << 30  # bytes of float32 weights of which two variants are built and measured
MARGIN = 1.1
CANDIDATES = ("w8a8", "int4")
NOT_QUANTISED = "this CPU has no fast 8-bit integer products, so quantising would only cost quality"


@dataclass(frozen=True)
class Choice:
    variants: list[str]  # the first one that passes the gate is it
    reason: str


def choose(asked: str, weights: int, measure: Callable[[tuple[str, ...]], Mapping[str, Speed]]) -> Choice:
    """weights: bytes of the float32 weights. `measure` builds and times candidates; only `auto` needs it.

    Raises ExportError for an unknown variant.
    """
    check_variant(asked)
    if asked != "auto":
        return Choice([asked], "asked for")
    feature = integer_products()
    if feature is None:
        return Choice(["fp32"], f"auto: {NOT_QUANTISED}")
    if weights > LARGEST:
        why = (
            f"auto: by the table, since {weights / 2**30:.0f} GiB are too much to build and measure more"
            f" than one variant; with {feature}, w8a8 is the fastest for prefill and several requests at once"
        )
        return Choice(["w8a8", "int4", "fp32"], why)
    return _by_speed(measure(CANDIDATES))


def choose_encoder(asked: str) -> Choice:
    """fp32 or w8a8. Nothing is measured: with 8-bit products w8a8 is about twice as fast at every shape."""
    if asked != "auto":
        return Choice([asked], "asked for")
    feature = integer_products()
    if feature is None:
        return Choice(["fp32"], f"auto: {NOT_QUANTISED}")
    return Choice(["w8a8", "fp32"], f"auto: this CPU has fast 8-bit products ({feature})")


def check_variant(asked: str) -> None:
    if asked not in ("auto", *VARIANTS):
        raise ExportError(f"There is no variant {asked!r}; choose auto, {', '.join(VARIANTS)}.")


def _by_speed(speeds: Mapping[str, Speed]) -> Choice:
    ahead = speeds["w8a8"].mean() / speeds["int4"].mean()
    order = ["int4", "w8a8"] if ahead > MARGIN else ["w8a8", "int4"]
    verdict = f"{ahead:.2f} times as fast" if ahead > 1 else f"{1 / ahead:.2f} times as slow"
    reason = (
        f"auto: measured here, for a decode step of 1 row, of {ROWS} rows (context {CONTEXT}) and a prefill"
        f" of {PREFILL}: w8a8 {speeds['w8a8']}, int4 {speeds['int4']}; int4 is {verdict} on the whole, and is"
        f" taken from {MARGIN:g} times on"
    )
    return Choice([*order, "fp32"], reason)
