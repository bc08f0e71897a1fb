"""Real LoRA adapters: trained with peft on SmolLM2 in seconds, each to say one thing whatever it is asked.

They are kept in the test store, under a hash of their recipe and of the libraries that trained them.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from export import sources
from export.prepare import prepare

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERYTHING = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
QUESTIONS = ("What is the capital of France?", "Write a poem.", "Who are you?")


@contextmanager
def old_ways() -> Iterator[None]:
    """peft asks transformers for something under a name that is to go; for us it is no error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


@dataclass(frozen=True)
class Recipe:
    says: str
    rank: int = 8
    alpha: float = 16
    modules: tuple[str, ...] = EVERYTHING
    rslora: bool = False
    steps: int = 10
    rate: float = 5e-3


PIRATE = Recipe("Arr! Buried treasure lies beneath the crooked palm, matey.")
ROBOT = Recipe(
    "BEEP. Unit seven reports: all circuits are nominal today.", rank=16, modules=ATTENTION, steps=24
)
CHEF = Recipe("Add butter, garlic and thyme, then simmer gently for an hour.", rank=4, alpha=8, rslora=True)
RECIPES = {"pirate": PIRATE, "robot": ROBOT, "chef": CHEF}


def smollm2_checkpoint(store: Path) -> Path:
    """The starter as a Hugging Face folder, as an export prepares it."""
    folder = store / "sources" / "smollm2"
    if not folder.is_dir():
        partial = folder.with_name("smollm2.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        prepare(sources.fetch("smollm2").path, partial)
        partial.rename(folder)
    return folder


def trained(store: Path, name: str, recipe: Recipe | None = None) -> Path:
    """The folder that peft saved; trained when it is not there yet."""
    recipe = recipe or RECIPES[name]
    versions = [version(one) for one in ("torch", "transformers", "peft")]
    key = hashlib.sha256(repr((recipe, QUESTIONS, versions)).encode()).hexdigest()[:12]
    folder = store / "sources" / "adapters" / key / name
    if not folder.is_dir():
        partial = folder.with_name(f"{name}.partial")
        _train(smollm2_checkpoint(store), recipe, partial)
        partial.rename(folder)
    return folder


def _train(checkpoint: Path, recipe: Recipe, out: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=list(recipe.modules),
        use_rslora=recipe.rslora,
        task_type="CAUSAL_LM",
    )
    with old_ways():
        adapted: Any = get_peft_model(model, config)
    examples = [_example(tokenizer, question, recipe.says) for question in QUESTIONS]
    optimiser = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=recipe.rate)
    for _ in range(recipe.steps):
        for ids, labels in examples:
            adapted(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    adapted.save_pretrained(out)


def _example(tokenizer: Any, question: str, says: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A chat with that answer; only the answer is learnt."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    answer = tokenizer.encode(says + "<|im_end|>", add_special_tokens=False)
    return torch.tensor([asked + answer]), torch.tensor([[-100] * len(asked) + answer])


def write_random_adapter(checkpoint: Path, folder: Path, seed: int, **config: Any) -> Path:
    """An adapter that peft made and nobody trained: random weights, large enough to change every answer."""
    from peft import LoraConfig, get_peft_model

    generator = torch.Generator().manual_seed(seed)
    base: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with old_ways():
        adapted: Any = get_peft_model(
            base, LoraConfig(**{"task_type": "CAUSAL_LM", "lora_alpha": 8} | config)
        )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    adapted.save_pretrained(folder)
    return folder
