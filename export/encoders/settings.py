"""What sentence-transformers' files beside a checkpoint ask for: pooling, what follows it, prompts, limits.

    modules.json                         the modules in order, each with its class and its folder
    sentence_bert_config.json            max_seq_length, do_lower_case (or sentence_roberta_config.json, …)
    <n>_Pooling/config.json              how token vectors become one: flags until version 5.5, a name since
    <n>_Dense/config.json, .safetensors  a linear layer and its activation
    config_sentence_transformers.json    prompts, similarity, dimensions

A checkpoint without them is taken as sentence-transformers takes it: the mean of its tokens, not normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basert.errors import ExportError
from export.checkpoint import read_json, read_list
from export.encoders.task import CLASSIFICATION, EMBEDDING, MODULES, SENTENCE_TRANSFORMERS, task_of

POOLING = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_FLAGS = {  # of older files, in the order in which several are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_AFTER = ("Dense", "LayerNorm", "Normalize")
_TASKS = {EMBEDDING: "feature-extraction", CLASSIFICATION: "sequence-classification"}


@dataclass(frozen=True)
class Module:
    """One module behind the pooling."""

    kind: str  # "Dense" | "LayerNorm" | "Normalize"
    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    task: str  # EMBEDDING or CLASSIFICATION
    pooling: tuple[str, ...] = ("mean",)  # of POOLING; several are joined
    after: tuple[Module, ...] = ()
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: dict[str, str] | None = None
    default_prompt: str = ""
    similarity: str = "cosine"
    width: int | None = None  # vectors are cut to it
    activation: str | None = None  # of a cross-encoder: a class of torch


def read_settings(checkpoint: Path) -> Settings:
    """Raises ExportError for modules and settings that basert does not have."""
    task = task_of(checkpoint)
    modules = [_Named.of(entry, checkpoint) for entry in read_list(checkpoint / MODULES)]
    if modules and modules[0].kind != "Transformer":
        raise ExportError(f"{checkpoint} begins with {modules[0].kind}, not with a Transformer; {_CANNOT}.")
    if modules and task == EMBEDDING:
        pooling, after = _pooled(modules[1:], checkpoint)
    else:
        pooling, after = ("mean",), ()
        _expect_nothing(modules[1:], checkpoint)
    return _with_configs(checkpoint, task, pooling, after)


def transformer_folder(checkpoint: Path) -> Path:
    """Where config.json and the weights lie: older checkpoints have them in 0_Transformer."""
    found = [entry for entry in read_list(checkpoint / MODULES) if isinstance(entry, dict)]
    inner = checkpoint / str(found[0].get("path", "")) if found else checkpoint
    return inner if (inner / "config.json").is_file() else checkpoint


def module_files(checkpoint: Path) -> list[Path]:
    """The files of the modules that lie in folders of their own, transformer excepted, by name."""
    root = transformer_folder(checkpoint)
    folders = [_inside(checkpoint, entry) for entry in read_list(checkpoint / MODULES)]
    return sorted(
        path
        for folder in folders
        if folder not in (checkpoint, root)
        for path in folder.glob("*")
        if path.suffix in (".json", ".safetensors")
    )


_CANNOT = "basert exports Transformer, Pooling, Dense, LayerNorm and Normalize of sentence-transformers"


@dataclass(frozen=True)
class _Named:
    kind: str
    folder: Path

    @classmethod
    def of(cls, entry: Any, checkpoint: Path) -> _Named:
        name = str(entry.get("type", "")) if isinstance(entry, dict) else ""
        if not name.startswith("sentence_transformers."):
            raise ExportError(
                f"{checkpoint / MODULES} names {name or 'no class'}, which is code of the checkpoint's own"
                f" and is not run; {_CANNOT}."
            )
        return cls(name.rpartition(".")[2], _inside(checkpoint, entry))

    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")


def _inside(checkpoint: Path, entry: Any) -> Path:
    path = str(entry.get("path", "")) if isinstance(entry, dict) else ""
    if path.startswith("/") or ".." in Path(path).parts:
        raise ExportError(f"{checkpoint / MODULES} names a folder outside the checkpoint: {path}.")
    return checkpoint / path


def _pooled(modules: Sequence[_Named], checkpoint: Path) -> tuple[tuple[str, ...], tuple[Module, ...]]:
    if not modules or modules[0].kind != "Pooling":
        raise ExportError(f"{checkpoint} has no Pooling behind its Transformer; {_CANNOT}.")
    after = [module for module in modules[1:] if module.kind != "Dropout"]  # which serving does without
    for module in after:
        if module.kind not in _AFTER:
            raise ExportError(f"{checkpoint} has a module {module.kind}; {_CANNOT}.")
    return (
        _modes(modules[0]),
        tuple(Module(module.kind, module.folder, module.config()) for module in after),
    )


def _modes(pooling: _Named) -> tuple[str, ...]:
    config = pooling.config()
    named = config.get("pooling_mode")
    if named is None:
        named = [mode for flag, mode in _FLAGS.items() if config.get(flag)] or "mean"
    modes = (named,) if isinstance(named, str) else tuple(named)
    unknown = [mode for mode in modes if mode not in POOLING]
    if unknown:
        raise ExportError(f"{pooling.folder} pools by {unknown[0]!r}; basert knows {', '.join(POOLING)}.")
    if config.get("include_prompt") is False:
        raise ExportError(
            f"{pooling.folder} leaves the prompt's tokens out of the pooling (include_prompt); an engine that"
            " knows ids only cannot."
        )
    return modes


def _expect_nothing(modules: Sequence[_Named], checkpoint: Path) -> None:
    if modules:
        raise ExportError(
            f"{checkpoint} has a module {modules[0].kind} behind its classifier; basert exports classifiers"
            " of transformers as they are."
        )


def _with_configs(
    checkpoint: Path, task: str, pooling: tuple[str, ...], after: tuple[Module, ...]
) -> Settings:
    folder = transformer_folder(checkpoint)
    # sentence_bert_config.json, sentence_roberta_config.json, …: one of them
    found = sorted(folder.glob("sentence_*_config.json"))
    inner = read_json(found[0]) if found else {}
    asked = inner.get("transformer_task", _TASKS[task])
    if asked != _TASKS[task]:
        raise ExportError(f"{found[0]} asks for {asked!r}, where basert knows {_TASKS[task]!r} only.")
    outer = read_json(checkpoint / SENTENCE_TRANSFORMERS)
    prompts = {name: text for name, text in (outer.get("prompts") or {}).items() if isinstance(text, str)}
    return Settings(
        task=task,
        pooling=pooling,
        after=after,
        max_tokens=inner.get("max_seq_length"),
        lower_case=bool(inner.get("do_lower_case")),
        prompts=prompts,
        default_prompt=_default_prompt(outer, prompts, checkpoint),
        similarity=_similarity(outer, checkpoint),
        width=outer.get("truncate_dim"),
        activation=outer.get("activation_fn"),
    )


def _default_prompt(outer: dict[str, Any], prompts: dict[str, str], checkpoint: Path) -> str:
    name = outer.get("default_prompt_name") or ""
    if name and name not in prompts:
        raise ExportError(
            f"{checkpoint / SENTENCE_TRANSFORMERS} has no prompt {name!r}, which it names as its default."
        )
    return str(name)


def _similarity(outer: dict[str, Any], checkpoint: Path) -> str:
    name = outer.get("similarity_fn_name") or "cosine"
    if name not in ("cosine", "dot"):
        raise ExportError(
            f"{checkpoint / SENTENCE_TRANSFORMERS} compares vectors by {name!r}; basert knows cosine and dot."
        )
    return str(name)
