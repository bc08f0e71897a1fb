"""Which models can do what: the one that a request names, or why it cannot. Knows manifests, no engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from basert.errors import InvalidRequest
from basert.http.models import Model
from basert.manifest import Encoder, Manifest, Speech

Task = Literal["generate", "embed", "rerank", "classify", "transcribe", "translate"]


class Registry(Protocol):
    """basert.http.models.Models, as far as it is needed here."""

    def get(self, name: str | None) -> Model: ...
    def all(self) -> list[Model]: ...


def _embeds(manifest: Manifest) -> bool:
    return manifest.encoder is not None and manifest.encoder.task == "embedding"


def _classifies(manifest: Manifest) -> bool:
    return manifest.encoder is not None and manifest.encoder.task == "classification"


def _ranks(manifest: Manifest) -> bool:
    encoder = manifest.encoder
    return encoder is not None and (_embeds(manifest) or (encoder.pairs and encoder.width == 1))


# task -> what it is called, and whether a model can do it
TASKS: dict[Task, tuple[str, Callable[[Manifest], bool]]] = {
    "generate": ("generates text", lambda manifest: manifest.encoder is None and manifest.speech is None),
    "embed": ("makes embeddings", _embeds),
    "rerank": ("ranks or scores pairs of texts", _ranks),
    "classify": ("classifies texts", _classifies),
    "transcribe": ("transcribes speech", lambda manifest: manifest.speech is not None),
    "translate": (
        "translates speech",
        lambda manifest: manifest.speech is not None and manifest.speech.translate is not None,
    ),
}


def task_of(manifest: Manifest) -> Task:
    """What a model is for: the first thing that it can do."""
    return next(task for task, (_, can) in TASKS.items() if can(manifest))


def model_for(task: Task, name: str | None, models: Registry) -> Model:
    """The model of this name or alias. Raises ModelNotFound; InvalidRequest for one for something else."""
    model = models.get(name)
    verb, can = TASKS[task]
    if can(model.manifest):
        return model
    does = TASKS[task_of(model.manifest)][0]
    others = ", ".join(one.name for one in models.all() if can(one.manifest))
    where = f"ask for one that {verb}: {others}" if others else f"no model of this server {verb}"
    raise InvalidRequest(f"The model {name!r} {does}; {where}.", param="model")


def encoder_for(task: Task, name: str | None, models: Registry) -> tuple[Model, Encoder]:
    """model_for, for what only encoders do."""
    model = model_for(task, name, models)
    assert model.manifest.encoder is not None
    return model, model.manifest.encoder


def only_encoder_for(task: Task, name: str | None, models: Registry) -> tuple[Model, Encoder]:
    """Of a request by an API without names of models: the only model that can do it, if there is only one."""
    able = [model.name for model in models.all() if TASKS[task][1](model.manifest)]
    return encoder_for(task, able[0] if not name and len(able) == 1 else name, models)


def speech_for(task: Task, name: str | None, models: Registry) -> tuple[Model, Speech]:
    """model_for, for what only speech models do."""
    model = model_for(task, name, models)
    assert model.manifest.speech is not None
    return model, model.manifest.speech
