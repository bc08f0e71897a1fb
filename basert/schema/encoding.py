"""What requests to an encoder have in common: how texts are cut and what comes before them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from basert.errors import InvalidRequest
from basert.manifest import Encoder
from basert.text.cutting import Cut

# What input_type may say, and the model's prompts that it stands for: the first that the model has.
INPUT_TYPES = {
    "query": ("query", "search_query"),
    "search_query": ("search_query", "query"),
    "document": ("document", "passage", "search_document", "corpus"),
    "passage": ("passage", "document", "search_document", "corpus"),
    "search_document": ("search_document", "document", "passage", "corpus"),
    "classification": ("classification", "Classification"),
    "clustering": ("clustering", "Clustering"),
}
SIDES = {"left": True, "start": True, "right": False, "end": False}  # whether the start is cut off


class EncoderUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class CohereTokens(msgspec.Struct):
    input_tokens: int


class CohereMeta(msgspec.Struct, kw_only=True):
    tokens: CohereTokens
    billed_units: dict[str, int]
    ranked_by: str | UnsetType = UNSET  # "cross-encoder", or what compared two vectors: "cosine" | "dot"
    warnings: list[str] | UnsetType = UNSET  # about texts that were cut


def cut_warning(texts: int, longest: int) -> list[str] | UnsetType:
    """longest: tokens that the model takes."""
    what = "1 text was" if texts == 1 else f"{texts} texts were"
    return [f"{what} cut; this model takes {longest} tokens, special ones included."] if texts else UNSET


class EncoderRequest(msgspec.Struct, kw_only=True):
    """Null means absent."""

    model: str | None = None
    user: str | None = None
    priority: (
        Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="Above 0: after all others.")] | None
    ) = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: (
        Annotated[int, Meta(ge=-1, le=2**31 - 1, description="-1: as many as the model takes.")] | None
    ) = None
    truncate: bool | Literal["NONE", "START", "END"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None

    @property
    def adds_special(self) -> bool:
        return self.add_special_tokens is not False

    @property
    def lane(self) -> int:
        """As basert.messages has priorities."""
        return int((self.priority or 0) > 0)

    def cut(self, longest: int) -> Cut | None:
        """What becomes of texts that are too long; None: they are refused. longest: what the model takes.

        Raises InvalidRequest.
        """
        most = self.truncate_prompt_tokens
        if most == 0:
            raise InvalidRequest(
                "Invalid 'truncate_prompt_tokens': expected -1 or at least 1.", param="truncate_prompt_tokens"
            )
        if most is None and self.truncate in (None, False, "NONE"):
            return None
        return Cut(longest if most is None or most < 0 else most, from_start=self.cuts_start)

    @property
    def cuts_start(self) -> bool:
        said = self.truncate if isinstance(self.truncate, str) else None
        side = self.truncation_side or self.truncation_direction or said
        return side is not None and SIDES.get(side.lower(), False)


class PromptedRequest(EncoderRequest, kw_only=True):
    """A request for vectors: what texts begin with, and what becomes of the vectors."""

    input_type: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    normalize: bool | None = None
    use_activation: Annotated[bool, Meta(description="The same as normalize.")] | None = None

    def begins_with(self, encoder: Encoder) -> str:
        """What is put before each text. Raises InvalidRequest for a name that means nothing here."""
        named = [name for name in ("prompt", "prompt_name", "input_type") if getattr(self, name) is not None]
        if len(named) > 1:
            raise InvalidRequest(f"Send either {' or '.join(map(repr, named))}, not both.", param=named[0])
        if self.prompt is not None:
            return self.prompt
        if self.prompt_name is not None:
            return _prompt(self.prompt_name, "prompt_name", encoder.prompts, encoder.prompts)
        if self.input_type in INPUT_TYPES and self.input_type not in encoder.prompts:
            return prompt_for(self.input_type, encoder)
        if self.input_type is not None:
            known = {**encoder.prompts, **INPUT_TYPES}
            return _prompt(self.input_type, "input_type", encoder.prompts, known)
        return encoder.prompts.get(encoder.default_prompt, "")

    def width(self, encoder: Encoder) -> int:
        """Of the vectors that are wanted. Raises InvalidRequest if the model was not trained for it."""
        wanted, allowed = self.dimensions, encoder.truncatable
        if wanted is None or wanted == encoder.width or (wanted in allowed and wanted):
            return wanted or encoder.width
        if 0 in allowed and wanted < encoder.width:
            return wanted
        others = sorted({*allowed, encoder.width} - {0})
        told = f"1 to {encoder.width}" if 0 in allowed else " or ".join(map(str, others))
        raise InvalidRequest(
            f"Invalid 'dimensions': this model makes vectors of {told} dimensions, not {wanted}.",
            param="dimensions",
        )

    def normalises(self, encoder: Encoder) -> bool:
        """Whether vectors are to have length 1. Raises InvalidRequest when they cannot be had otherwise."""
        wanted = self.normalize if self.normalize is not None else self.use_activation
        if encoder.normalised and wanted is False:
            param = "normalize" if self.normalize is False else "use_activation"
            raise InvalidRequest(
                f"This model's vectors are normalised inside its graph; leave '{param}' out.", param=param
            )
        return encoder.normalised or bool(wanted)


def prompt_for(input_type: str, encoder: Encoder) -> str:
    """The prompt that the model has for a kind of text; where it has none, its default one, if any."""
    names = [name for name in INPUT_TYPES[input_type] if name in encoder.prompts]
    return encoder.prompts.get(names[0] if names else encoder.default_prompt, "")


def _prompt(name: str, param: str, prompts: dict[str, str], known: Iterable[str]) -> str:
    if name not in prompts:
        names = ", ".join(map(repr, known)) or "none"
        raise InvalidRequest(f"Invalid '{param}': {name!r} is unknown; this model has {names}.", param=param)
    return prompts[name]
