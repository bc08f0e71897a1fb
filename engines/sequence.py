"""One request inside the engine: its tokens, how far they are in the cache, and when it is over.

Plain Python, no tensor. `admission` is the one place that refuses a request for what it asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from basert.messages import Failed, Submit, TokenLogprob, Tokens
from engines.drafts import Drafter

if TYPE_CHECKING:
    from engines.adapters import Adapter
    from engines.constraints import Constraint

# Within these no logit of any model overflows, and no request can leave itself without a token to draw.
LARGEST = 1e6
LEAST_REPETITION = 0.01
MOST_STOP_IDS = 256
MOST_BAD_WORDS = 512


@dataclass(eq=False, slots=True, weakref_slot=True)
class Sequence:
    """A request that was let in. It waits while `slot` is -1."""

    peer: int
    submit: Submit
    eos: frozenset[int]  # the ids that end it
    limit: int  # tokens, prompt included, at which it ends with "length"
    arrived: float  # seconds, time.monotonic
    tokens: list[int] = field(default_factory=list)  # the prompt and what was drawn since
    ids: bytes = b""  # the prompt as engines.prefix compares it
    lone: bool = True  # the prompt's last token goes through a decode step
    stepped: bool = False  # so do all others
    computed: int = 0  # tokens whose keys and values are in the cache
    cached: int = 0  # of these, the ones that other sequences had computed
    slot: int = -1
    scores: list[TokenLogprob] = field(default_factory=list)  # of the prompt, until they are sent
    drafter: Drafter = field(default_factory=Drafter)
    constraint: Constraint | None = None  # what its tokens have to be
    heard: bool = True  # what it is to hear is heard
    sot: int = -1  # where in the prompt the model says whether anybody speaks, if it does
    no_speech: float = -1.0  # what it said, until that is sent
    adapter: Adapter | None = None  # that answers in the model's place

    @property
    def key(self) -> tuple[int, int]:
        return self.peer, self.submit.id

    @property
    def priority(self) -> int:
        return self.submit.priority

    @property
    def pending(self) -> int:
        """Tokens that must go through the graph before the next can be drawn."""
        return len(self.tokens) - self.computed

    @property
    def prefilling(self) -> bool:
        """Whether the next of these go through it in a chunk, not in a decode step, or have to wait for what
        is still to be heard."""
        pending = len(self.tokens) - self.computed
        if pending > 1:
            return not (self.stepped and self.heard)
        return not self.heard or (pending == 1 and not self.lone and not self.generated)

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.submit.prompt)

    @property
    def answer(self) -> list[int]:
        return self.tokens[len(self.submit.prompt) :]

    @property
    def aligned(self) -> bool:
        """Whether it is wanted where in the sound a token is."""
        return self.submit.sound is not None and self.submit.sound.alignment

    @property
    def scoring(self) -> bool:
        """Whether the prompt's own log-probabilities are wanted."""
        return self.submit.prompt_logprobs >= 0

    @property
    def needs_logits(self) -> bool:
        """False where the graph's own ArgMax is the answer."""
        sampling = self.submit.sampling
        return (
            sampling.temperature > 0
            or self.constraint is not None
            or self.submit.logprobs >= 0
            or self.generated < self.submit.min_tokens
            or bool(sampling.logit_bias or self.submit.allowed_ids or self.submit.bad_words)
            or bool(sampling.presence_penalty or sampling.frequency_penalty)
            or sampling.repetition_penalty != 1
            or self.submit.sound is not None
        )

    def forbidden(self) -> list[int]:
        """What may not come next: an end before min_tokens, the last token of a bad word."""
        ends = list(self.eos) if self.generated < self.submit.min_tokens else []
        said = self.answer if self.submit.bad_words else []
        words = (word for word in self.submit.bad_words if said[len(said) - len(word) + 1 :] == word[:-1])
        return ends + [word[-1] for word in words]

    @property
    def finish(self) -> str:
        """ "stop", "length", or "" while it goes on."""
        if self.generated and self.tokens[-1] in self.eos:
            return "stop"
        return "length" if len(self.tokens) >= self.limit else ""

    def tell(
        self, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...], alignment: bytes = b""
    ) -> list[Tokens]:
        """A message for each of the newest tokens, which are booked: what reads them need not know that
        several came of one run. With no token (a prompt that is only scored), one message. alignment: of the
        only token."""
        messages = []
        for i in range(max(1, len(tokens))):
            finish = self.finish if i + 1 >= len(tokens) else ""
            said = list(tokens[i : i + 1]), finish, list(logprobs[i : i + 1]), self.scores, self.cached
            messages.append(Tokens(self.submit.id, *said, self.no_speech, alignment))
            self.scores, self.cached, self.no_speech = [], 0, -1.0
        return messages


def admission(submit: Submit, vocab_size: int, max_context: int) -> Failed | None:
    """Why a request cannot be run, or None. Everything later relies on what is checked here."""
    if reason := _invalid(submit, vocab_size):
        return Failed(submit.id, "invalid", reason)
    length = len(submit.prompt)
    if length + min(submit.max_tokens, 1) > max_context:
        return Failed(
            submit.id,
            "context_length_exceeded",
            f"This model's maximum context length is {max_context} tokens, and your prompt has {length}, "
            "which leaves no room for an answer; shorten the prompt.",
        )
    return None


def _invalid(submit: Submit, vocab_size: int) -> str:
    sampling = submit.sampling
    numbers = (
        sampling.temperature,
        sampling.top_p,
        sampling.min_p,
        sampling.presence_penalty,
        sampling.frequency_penalty,
        sampling.repetition_penalty,
        *sampling.logit_bias.values(),
    )
    if not submit.prompt:
        return "The prompt is empty; it needs at least one token."
    if not 0 <= min(submit.prompt) <= max(submit.prompt) < vocab_size:
        return f"The prompt holds token ids outside of this model's vocabulary of {vocab_size}."
    if len(submit.stop_ids) > MOST_STOP_IDS:
        return f"At most {MOST_STOP_IDS} stop_token_ids are possible."
    if len(submit.bad_words) > MOST_BAD_WORDS or not all(submit.bad_words):
        return f"At most {MOST_BAD_WORDS} bad_words are possible, each of one token or more."
    named = chain(submit.stop_ids, sampling.logit_bias, submit.allowed_ids, *submit.bad_words)
    if not all(0 <= token < vocab_size for token in named):
        return (
            f"stop_token_ids, logit_bias, allowed_token_ids and bad_words take token ids below {vocab_size}."
        )
    if submit.max_tokens < 0 or (submit.max_tokens == 0 and submit.prompt_logprobs < 0):
        return "max_tokens must be at least 1."
    if not all(abs(number) <= LARGEST for number in numbers):  # a NaN is not
        return f"Sampling parameters must be numbers of at most {LARGEST:.0f}."
    if sampling.temperature < 0:
        return "temperature must not be negative."
    if sampling.repetition_penalty < LEAST_REPETITION:
        return f"repetition_penalty must be at least {LEAST_REPETITION}."
    return ""
