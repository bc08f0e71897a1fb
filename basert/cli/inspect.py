"""`basert inspect`: what a bundle's manifest says, or an adapter's, for people or as JSON."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path

import click
import msgspec

from basert import adapter, store
from basert.adapter import read_adapter
from basert.cli.completion import bundle_names
from basert.cli.parity import numbers_line, parity_line
from basert.cli.tables import size, table
from basert.manifest import Encoder, Graph, KVCache, Manifest, Speech, Tensor, digest, read_manifest


@click.command("inspect")
@click.argument("bundle", shell_complete=bundle_names)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest, and the bundle's digest and path.")
def command(bundle: str, as_json: bool) -> None:
    """Show a BUNDLE (a name in the store, or a folder): graphs, shapes, sizes, parity, provenance."""
    if store.is_adapter_name(bundle):
        _show_adapter(store.find_adapter(bundle), as_json=as_json)
        return
    path = store.find(bundle)
    manifest = read_manifest(path)
    if as_json:
        shown = {"path": str(path), "digest": digest(path), **msgspec.to_builtins(manifest)}
        click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2))
        return
    click.echo(table(("BUNDLE", str(path)), [*_summary(manifest), ("digest", digest(path)[:16])]))
    for graph in manifest.graphs:
        click.echo(f"\n{_graph(graph)}")
    files = [(file.path, size(file.bytes), file.sha256[:16]) for file in manifest.files]
    click.echo(f"\n{table(('FILE', 'SIZE', 'SHA-256'), files)}")


def _show_adapter(path: Path, *, as_json: bool) -> None:
    told = read_adapter(path)
    if as_json:
        shown = {"path": str(path), "digest": adapter.digest(path), **msgspec.to_builtins(told)}
        click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2))
        return
    rows = [
        ("name", told.name),
        ("base", told.base),
        ("changes", ", ".join(told.modules)),
        ("rank", f"{told.rank}, alpha {told.alpha:g}, scaled by {told.scaled}"),
        ("parity", numbers_line(told.parity)),
        ("source", told.source.uri),
        ("with", ", ".join(f"{name} {version}" for name, version in told.versions.items())),
        ("digest", adapter.digest(path)[:16]),
    ]
    click.echo(table(("ADAPTER", str(path)), rows))


def _summary(manifest: Manifest) -> list[tuple[str, str]]:
    origin = manifest.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    made = datetime.datetime.fromtimestamp(origin.created, datetime.UTC)
    return [
        ("name", manifest.name),
        ("family", f"{manifest.family}, {origin.architecture}"),
        ("variant", f"{manifest.variant} ({manifest.variant_reason})"),
        ("vocabulary", f"{manifest.vocab_size} token ids"),
        *(_encoder(manifest.encoder) if manifest.encoder else _decoder(manifest)),
        *(_speech(manifest.speech) if manifest.speech else []),
        ("parity", parity_line(manifest)),
        ("source", origin.source.uri),
        ("licence", origin.source.licence or "not stated"),
        ("exported", f"{made:%Y-%m-%d %H:%M} UTC by basert {origin.basert}, {origin.exporter}"),
        ("with", versions),
        ("on", origin.host),
    ]


def _decoder(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("context", f"{manifest.max_context} tokens, {manifest.slots} slots"),
        ("KV cache", _kv_cache(manifest.kv_cache)),
        ("ends with", ", ".join(map(str, manifest.eos_token_ids)) or "nothing"),
        *([] if manifest.speech else [("chat", _chat(manifest))]),
    ]


def _chat(manifest: Manifest) -> str:
    return "has a template" if manifest.has_chat_template else "no template: completions only"


def _encoder(encoder: Encoder) -> list[tuple[str, str]]:
    if encoder.task == "embedding":
        norm = "length 1" if encoder.normalised else "any length"
        answer = f"{encoder.width} dimensions of {norm}, {encoder.pooling} pooling"
    else:
        answer = f"{encoder.activation} of {', '.join(encoder.labels)}"
    prompts = ", ".join(f"{name} ({text!r})" for name, text in encoder.prompts.items())
    return [
        ("answers", answer),
        ("input", f"up to {encoder.max_tokens} tokens"),
        ("prompts", prompts or "none"),
    ]


def _speech(speech: Speech) -> list[tuple[str, str]]:
    codes = ", ".join(speech.languages) or "English only"
    words = f"by {speech.alignment_heads} heads" if speech.alignment_heads else "none"
    return [
        ("hears", f"{speech.mels} mels, {speech.frames} frames a window"),
        ("languages", codes),
        ("word times", words),
    ]


def _kv_cache(cache: KVCache) -> str:
    shapes = Counter(zip(cache.kv_heads, cache.head_dim, strict=True))
    layers = ", ".join(f"{count} layers of {heads} x {dim}" for (heads, dim), count in shapes.items())
    return f"{cache.dtype}, {layers}"


def _graph(graph: Graph) -> str:
    """Name and shapes; a graph's many cache tensors are shown by their first layer."""
    head = f"GRAPH {graph.role} for {graph.target}: {graph.path}"
    buckets = f"  batch {_numbers(graph.batch_buckets)}; chunk {_numbers(graph.chunk_buckets)}"
    if graph.shapes:
        unit = "columns" if graph.role == "listener" else "tokens"
        buckets = f"  rows x {unit} " + ", ".join(f"{rows}x{tokens}" for rows, tokens in graph.shapes)
    rows = [("  in", *_tensor(tensor)) for tensor in graph.inputs if _shown(tensor)]
    rows += [("  out", *_tensor(tensor)) for tensor in graph.outputs if _shown(tensor)]
    return "\n".join((head, buckets, table(("", "NAME", "DTYPE", "SHAPE"), rows)))


def _shown(tensor: Tensor) -> bool:
    return "." not in tensor.name or ".0." in tensor.name


def _tensor(tensor: Tensor) -> tuple[str, str, str]:
    return tensor.name, tensor.dtype, f"[{', '.join(map(str, tensor.shape))}]"


def _numbers(values: list[int]) -> str:
    return ", ".join(map(str, values))
