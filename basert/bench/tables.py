"""A report as text for a terminal. Knows how numbers are laid out, nothing about how they were come by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from basert.bench.results import (
    Embeddings,
    Level,
    Machine,
    Percentiles,
    Report,
    Spread,
    Subject,
    Transcripts,
)


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
        parts += _errors(report.load)
    if report.embeddings:
        title = f"Embeddings, {runs}; milliseconds of a request at p50 / p90 / p99"
        parts += [report.texts, table(title, *_embeddings(report)), *_errors(report.embeddings)]
    if report.buckets:
        parts.append(table("Buckets of the graph, over all of it", *_buckets(report)))
    if report.transcripts:
        title = f"Transcripts: seconds of sound per second, {runs}; milliseconds at p50 / p90 / p99"
        parts += [report.recordings, table(title, *_transcripts(report)), *_errors(report.transcripts)]
    if any(one.engine for one in report.transcripts):
        parts.append(table("The engine meanwhile", *_listening(report)))
    parts += [f"left out: {reason}" for reason in dict.fromkeys(report.skipped)]
    return "\n\n".join(parts)


def _errors(measured: Sequence[Level | Embeddings | Transcripts]) -> list[str]:
    return [f"  {count} × {error}" for one in measured for error, count in one.errors.items()]


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


def _embeddings(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (
            f"{one.inputs}",
            f"{one.concurrency}",
            f"{one.requests}",
            f"{sum(one.errors.values())}",
            *_spread(one.texts_per_second),
            _percentiles(one.whole_request, 1),
        )
        for one in report.embeddings
    ]
    return ("texts", "clients", "answered", "errors", "texts/s", "", "latency"), [*rows]


def _buckets(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    whole = sum(one.run_seconds for one in report.buckets)
    rows = [
        (
            f"{one.rows} x {one.tokens}",
            f"{one.runs:,}",
            f"{one.inputs / (one.runs * one.rows):.0%}",
            f"{one.input_tokens / (one.runs * one.rows * one.tokens):.0%}",
            f"{1e3 * one.run_seconds / one.runs:.2f}",
            f"{1e6 * one.run_seconds / one.input_tokens:.1f}" if one.input_tokens else "",
            f"{one.run_seconds / whole:.0%}" if whole else "",
        )
        for one in report.buckets
    ]
    return ("rows x tokens", "runs", "rows used", "tokens used", "ms/run", "µs/token", "of all"), [*rows]


def _transcripts(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (
            *_asked(one),
            f"{one.requests}",
            f"{sum(one.errors.values())}",
            *_spread(one.sound_per_second, 1),
            f"{1 / one.sound_per_second.median:.4f}",
            _percentiles(one.first_segment),
            _percentiles(one.whole_request),
            f"{one.word_error_rate:.1%}",
        )
        for one in report.transcripts
    ]
    names = ("recordings", "asked", "clients", "answered", "errors", "sound/s", "", "real-time factor")
    return (*names, "first segment", "whole", "word errors"), [*rows]


def _listening(report: Report) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows = [
        (
            *_asked(one),
            f"{engine.windows}",
            f"{engine.windows_reused}",
            _each(engine.listen_seconds, engine.windows),
            f"{engine.steps}",
            f"{engine.rows:.1f}",
            _each(engine.decode_seconds, engine.steps),
            _each(engine.outside_seconds, engine.steps),
        )
        for one in report.transcripts
        if (engine := one.engine)
    ]
    names = ("recordings", "asked", "clients", "windows", "heard before", "ms/window", "steps", "rows/step")
    return (*names, "ms/step", "ms outside the graphs"), [*rows]


def _asked(one: Transcripts) -> tuple[str, str, str]:
    return f"{one.seconds:g} s" if one.seconds else "single", one.asked, f"{one.concurrency}"


def _each(seconds: float, count: int) -> str:
    return f"{1e3 * seconds / count:.2f}" if count else ""


def _spread(spread: Spread, digits: int = 0) -> tuple[str, str]:
    median, lowest, highest = (
        f"{value:,.{digits}f}" for value in (spread.median, spread.lowest, spread.highest)
    )
    return median, f"({lowest}–{highest})"


def _percentiles(of: Percentiles, digits: int = 0) -> str:
    values = (of.p50, of.p90, of.p99)
    return " / ".join("–" if value is None else f"{value:,.{digits}f}" for value in values)


def table(title: str, names: Sequence[str], rows: list[Sequence[str]]) -> str:
    """`names` is the first line under the title."""
    return "\n".join([title, *_aligned([names, *rows])])


def _aligned(rows: list[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
