"""The endpoints that load and unload adapters, in basert's form and in vLLM's."""

from __future__ import annotations

from typing import Literal

import msgspec

from basert.errors import InvalidRequest


class AdapterRequest(msgspec.Struct, kw_only=True):
    lora: str  # its name in the store
    model: str | None = None  # that it belongs to; else whichever it was exported for

    @property
    def name(self) -> str:
        return self.lora

    def check(self) -> None:
        """Nothing depends on several fields."""


class VllmAdapterRequest(msgspec.Struct, kw_only=True):
    """As vLLM has it, but for lora_path: adapters come from the store."""

    lora_name: str
    lora_path: str | None = None
    model: str | None = None

    @property
    def name(self) -> str:
        return self.lora_name

    def check(self) -> None:
        if self.lora_path not in (None, "", self.lora_name):
            raise InvalidRequest(
                "Adapters are loaded from the model store by name: run `basert export-lora` there, and leave"
                " lora_path out.",
                param="lora_path",
            )


class AdapterState(msgspec.Struct):
    id: str
    parent: str  # the model that it changes
    loaded: bool
    object: Literal["lora"] = "lora"
