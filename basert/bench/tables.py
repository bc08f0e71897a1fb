"""A report as text for a terminal. Knows how numbers are laid out, nothing about how they were come by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from basert.bench.results import Machine, Percentiles, Report, Spread, Subject


def render(report: Report) -> str:
    """The whole report: who and where, then a table for each thing that was measured."""
    runs = f"median of {report.repetitions} (lowest–highest)"
    parts = [_heading(report.subject, report.machine)]
    if report.prefill:
        parts.append(table(f"Prefill: prompt tokens per second, {runs}", *_prefill(report)))
    if report.decode:
        parts.append(table(f"Decode: output tokens per second, {runs}", *_decode(report)))
    if report.load:
        parts.append(table(_load_title(report, runs), *_load(report)))
        parts += [f"  {count} × {error}" for level in report.load for error, count in level.errors.items()]
    parts += [f"left out: {reason}" for reason in dict.fromkeys(report.skipped)]
    return "\n\n".join(parts)


def _heading(subject: Subject, machine: Machine) -> str:
    model = ", ".join(filter(None, (subject.model, subject.variant, subject.build)))
    features = " ".join(machine.features) or "no SIMD of note"
    packages = ", ".join(f"{name} {version}" for name, version in list(machine.packages.items())[:2])
    return f"{model}\n{machine.cpu}, {machine.cpus} CPUs, {features}\n{packages}"


def _prefill(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (f"{one.prompt_tokens}", f"{one.batch}", *_spread(one.tokens_per_second)) for one in report.prefill
    ]
    return ("prompt", "batch", "tokens/s", ""), [*rows]


def _decode(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (
            f"{one.prompt_tokens}",
            f"{one.batch}{' by schema' if one.constrained else ''}",
            *_spread(one.tokens_per_second),
            f"{1e3 * one.batch / one.tokens_per_second.median:.1f}",
            "" if one.python_share is None else f"{one.python_share.median:.1%}",
        )
        for one in report.decode
    ]
    return ("prompt", "batch", "tokens/s", "", "ms/step", "outside the graph"), [*rows]


def _load_title(report: Report, runs: str) -> str:
    one = report.load[0]
    shared = f" ({one.shared_prefix} of them shared)" if one.shared_prefix else ""
    return (
        f"Load: {one.prompt_tokens} prompt{shared} and {one.output_tokens} output tokens a request, {runs};"
        " milliseconds at p50 / p90 / p99"
    )


def _load(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (
            f"{one.concurrency}",
            f"{one.requests}",
            f"{sum(one.errors.values())}",
            f"{one.requests_per_second.median:.2f}",
            *_spread(one.output_tokens_per_second),
            _percentiles(one.first_token),
            _percentiles(one.inter_token),
        )
        for one in report.load
    ]
    names = ("clients", "answered", "errors", "requests/s", "tokens/s", "", "first token", "between tokens")
    return names, [*rows]


def _spread(spread: Spread) -> tuple[str, str]:
    return f"{spread.median:,.0f}", f"({spread.lowest:,.0f}–{spread.highest:,.0f})"


def _percentiles(of: Percentiles) -> str:
    return " / ".join("–" if value is None else f"{value:,.0f}" for value in (of.p50, of.p90, of.p99))


def table(title: str, names: Sequence[str], rows: list[Sequence[str]]) -> str:
    """`names` is the first line under the title."""
    return "\n".join([title, *_aligned([names, *rows])])


def _aligned(rows: list[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
