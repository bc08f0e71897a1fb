"""An encoder as one torch module: ids and mask in, vectors or logits out. What torch.onnx.export sees.

    input_ids[rows, tokens] i64, attention_mask[rows, tokens] i64 (, token_type_ids[rows, tokens] i64)
    -> values[rows, width] f32

Positions are handed over, not found from ids, so that it does not matter which id padding has.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from basert.errors import ExportError
from export.checkpoint import first_line
from export.encoders.settings import Module, Settings
from export.encoders.task import CLASSIFICATION

_CLASSES = {True: "AutoModelForSequenceClassification", False: "AutoModel"}


def load_model(checkpoint: Path, task: str) -> Any:
    """transformers' own model in fp32, with attention in plain products. Raises ExportError."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    kind = getattr(transformers, _CLASSES[task == CLASSIFICATION])
    try:
        return kind.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            attn_implementation="eager",
            trust_remote_code=False,
            local_files_only=True,
        ).eval()
    except Exception as error:  # safetensors, transformers and torch each raise their own
        raise ExportError(f"transformers cannot load {checkpoint}: {first_line(error)}.") from error


class EncoderModule(nn.Module):  # type: ignore[misc]
    """A loaded model with what makes its answer. token_types: forward takes token_type_ids."""

    def __init__(self, model: Any, settings: Settings) -> None:
        super().__init__()
        self.model = model
        self.pooling = settings.pooling
        self.after = nn.ModuleList([_module(module) for module in settings.after])
        self.width = settings.width
        self.classifies = settings.task == CLASSIFICATION
        self.scores_tokens = self.classifies and hasattr(model, "score")  # and takes the last one's
        self.offset = position_offset(model)
        backbone = model.base_model if self.scores_tokens else model
        self._takes = set(inspect.signature(backbone.forward).parameters)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        if not self.scores_tokens:
            answer = self._run(self.model, input_ids, attention_mask, token_type_ids)
            return self.finish(answer, attention_mask)
        answer = self._run(self.model.base_model, input_ids, attention_mask, None)
        logits: Tensor = self.model.score(pool("lasttoken", answer.last_hidden_state, attention_mask))
        return logits

    def finish(self, answer: Any, mask: Tensor) -> Tensor:
        """What transformers' model answered -> f32 [rows, width]."""
        if self.classifies:
            logits: Tensor = answer.logits
            return logits
        values = torch.cat([pool(mode, answer.last_hidden_state, mask) for mode in self.pooling], dim=-1)
        for module in self.after:
            values = module(values)
        return values if self.width is None else values[:, : self.width]

    def _run(self, model: Any, ids: Tensor, mask: Tensor, token_types: Tensor | None) -> Any:
        more: dict[str, Any] = {}
        if "position_ids" in self._takes:
            more["position_ids"] = torch.arange(self.offset, ids.shape[1] + self.offset)[None]
        if "token_type_ids" in self._takes:
            more["token_type_ids"] = torch.zeros_like(ids) if token_types is None else token_types
        if "use_cache" in self._takes:
            more["use_cache"] = False
        return model(input_ids=ids, attention_mask=mask, **more)


def position_offset(model: Any) -> int:
    """The position of a text's first token: behind the padding's, where the model keeps a row for that."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def pool(mode: str, hidden: Tensor, mask: Tensor) -> Tensor:
    """hidden f32 [rows, tokens, channels], mask i64 [rows, tokens] -> f32 [rows, channels].

    What a row without any token gives is never looked at; it is zeros, but for "cls" and "max".
    """
    if mode == "cls":
        return hidden[:, 0]
    weights = mask.to(hidden.dtype)
    if mode == "lasttoken":
        last = weights - functional.pad(weights[:, 1:], (0, 1))  # 1 where padding follows
        return (hidden * last[..., None]).sum(1)
    if mode == "max":
        return (hidden + (weights[..., None] - 1) * 3e38).max(1).values
    if mode == "weightedmean":
        weights = weights * torch.arange(1, mask.shape[1] + 1).to(hidden.dtype)
    total = (hidden * weights[..., None]).sum(1)
    count = weights.sum(1, keepdim=True).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


class _Normalize(nn.Module):  # type: ignore[misc]
    def forward(self, values: Tensor) -> Tensor:
        return functional.normalize(values, p=2.0, dim=-1)


def _module(module: Module) -> nn.Module:
    if module.kind == "Normalize":
        return _Normalize()
    if module.kind == "LayerNorm":
        return _loaded(nn.LayerNorm(module.config["dimension"]), "norm", module.folder)
    config = module.config
    if config.get("use_residual"):
        raise ExportError(f"{module.folder} adds its input to its output (use_residual); basert cannot yet.")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    return nn.Sequential(_loaded(linear, "linear", module.folder), activation(name, module.folder))


def activation(name: str, where: Path) -> nn.Module:
    """A class of torch by its dotted name; ExportError for any other."""
    kind = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise ExportError(f"{where} asks for the activation {name!r}; basert knows those of torch.nn only.")
    made: nn.Module = kind()
    return made


def _loaded(module: nn.Module, prefix: str, folder: Path) -> nn.Module:
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if not path.is_file():
        raise ExportError(f"{folder} has no model.safetensors, and basert reads no pickled weights.")
    try:
        weights = {name.removeprefix(f"{prefix}."): tensor for name, tensor in load_file(path).items()}
        module.load_state_dict(weights)
    except Exception as error:  # safetensors' and torch's own
        raise ExportError(f"{path} cannot be used ({first_line(error)}); fetch it again.") from None
    return module.float().eval()
