"""A comparison as a Markdown page. Knows how numbers are laid out, nothing about how they were come by."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from basert.bench.peers.results import METRICS, Comparison, Contestant
from basert.bench.results import Spread

MISSING = "–"
# What stands beside every speed, the worst of it: (how it is written, what it is).
QUALITY = {
    "cosine_min": (
        "cos {:.5f}",
        "cos: the lowest cosine of any of its vectors to the checkpoint's own in float32.",
    ),
    "word_errors": (
        "WER {:.1f} %",
        "WER: words put in, left out or written otherwise, after Whisper's normalisation.",
    ),
}


def render(report: Comparison) -> str:
    """The whole page, headline table first."""
    parts = [
        "# basert beside other servers",
        _heading(report),
        "## In one table",
        _summary(report),
        "## Workload by workload",
        *_details(report),
        "## The servers",
        *(_contestant(one) for one in report.contestants),
        *_left_out(report),
        "## How it was measured",
        _method(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: Comparison) -> str:
    machine, settings = report.machine, report.settings
    lines = [
        f"Model: {report.model} ({report.source}); bundle: {report.bundle}",
        f"Machine: {machine.cpu}, {machine.cpus} CPUs ({' '.join(machine.features)}),"
        f" {machine.memory_bytes / (1 << 30):.0f} GiB, Linux {machine.kernel}, Python {machine.python}",
        f"Measured: {report.started}, {settings['repetitions']:g} rounds, every server with"
        f" {settings['threads']:g} threads" + ("" if report.complete else "; **not complete**"),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _summary(report: Comparison) -> str:
    names = [one.name for one in report.contestants]
    rows = [
        (
            f"{workload}: {report.workloads[workload]}",
            METRICS[metric].label,
            *(_beside(report, workload, name, metric, names[0]) for name in names),
        )
        for workload, metric in report.headlines.items()
    ]
    return _table(("workload", "what", *names), rows) + _legend(report, names)


def _legend(report: Comparison, names: Sequence[str]) -> str:
    lines = []
    if len(names) > 1:
        lines.append(
            f"Medians (lowest–highest). In brackets: how many times better {names[0]} is, the median over the"
            " rounds of the two servers' ratio in a round."
        )
    lines += [about for metric, (_, about) in QUALITY.items() if _known(report, metric)]
    return "".join(f"\n\n{line}" for line in lines)


def _beside(report: Comparison, workload: str, name: str, metric: str, reference: str) -> str:
    spread = report.spread(workload, name, metric)
    if spread is None:
        return MISSING
    better = None if name == reference else report.advantage(workload, reference, name, metric)
    return (
        _spread(spread, METRICS[metric].digits)
        + ("" if better is None else f" [{better:.2f}×]")
        + _quality(report, workload, name)
    )


def _quality(report: Comparison, workload: str, name: str) -> str:
    text = ""
    for metric, (written, _) in QUALITY.items():
        if spread := report.spread(workload, name, metric):
            better = METRICS[metric].higher_is_better
            text += ", " + written.format(spread.lowest if better else spread.highest)
    return text


def _known(report: Comparison, metric: str) -> bool:
    return any(metric in sample.values for sample in report.samples)


def _details(report: Comparison) -> Iterator[str]:
    for workload, about in report.workloads.items():
        metrics = report.metrics_of(workload)
        if not metrics:
            continue
        rows = [
            (one.name, *(_cell(report.spread(workload, one.name, name), name) for name in metrics))
            for one in report.contestants
        ]
        yield f"### {workload}\n\n{about}\n\n" + _table(
            ("server", *(METRICS[name].label for name in metrics)), rows
        )


def _contestant(one: Contestant) -> str:
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in one.environment.items())
    lines = [
        ", ".join(f"{name} {version}" for name, version in one.versions.items()),
        f"`{' '.join(filter(None, (environment, shlex.join(one.command))))}`",
        *one.notes,
        f"Installing it took {one.install_seconds:.0f} s." if one.install_seconds >= 1 else "",
    ]
    return f"### {one.name}\n\n" + "\n".join(f"- {line}" for line in lines if line)


def _left_out(report: Comparison) -> Iterator[str]:
    failures = {
        f"{one.server}, {one.workload}, round {one.round + 1}: {one.reason}": None for one in report.failures
    }
    lines = [
        *(f"{name}: {reason}" for name, reason in report.left_out.items()),
        *failures,
        *report.skipped,
    ]
    if lines:
        yield "## Left out\n\n" + "\n".join(f"- {line}" for line in lines)


def _method(report: Comparison) -> str:
    idle = ", ".join(f"{name} {cores:.1%}" for name, cores in report.busiest_idle().items())
    lines = [
        *report.method,
        "In a round all servers run, and each workload goes from one to the next, in changing order; only the"
        " one that is measured has requests.",
        f"The most that a waiting server took of one core meanwhile: {idle}." if idle else "",
        "Every round starts the servers anew; their files are in the page cache by then.",
        "Memory is the proportional set size of all processes of a server, at its highest.",
        f"Command: `{shlex.join(report.command)}`",
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _cell(spread: Spread | None, metric: str) -> str:
    return MISSING if spread is None else _spread(spread, METRICS[metric].digits)


def _spread(spread: Spread, digits: int) -> str:
    median, lowest, highest = (
        f"{value:,.{digits}f}" for value in (spread.median, spread.lowest, spread.highest)
    )
    return median if len(spread.samples) == 1 else f"{median} ({lowest}–{highest})"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
