"""One request for embeddings and its clock, and how close its vectors are to others. Knows no server."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from basert.bench.load import Outcome
from basert.client import Client, RequestFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


async def run(client: Client, body: dict[str, Any], outcome: Outcome) -> None:
    """As load.run: never raises for what the server does. The whole answer is one arrival."""
    try:
        answer = await client.embed(body)
        outcome.arrivals.append(time.perf_counter())
        outcome.vectors = [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
        outcome.prompt_tokens = answer.usage.prompt_tokens
    except RequestFailed as error:
        outcome.error = error.message
    finally:
        outcome.began.set()


def check(outcomes: Sequence[Outcome], bodies: Sequence[dict[str, Any]]) -> None:
    """Raises RequestFailed unless every request got a vector for each of its texts."""
    for one, body in zip(outcomes, bodies, strict=True):
        if one.error is not None:
            raise RequestFailed(one.error)
        if len(one.vectors) != len(body["input"]):
            raise RequestFailed(f"it answered {len(one.vectors)} vectors to {len(body['input'])} texts.")


def cosines(outcomes: Iterable[Outcome], reference: bytes) -> list[float]:
    """Between the answers and as many vectors of `reference` (float32 [texts, width], of any length).

    Raises RequestFailed where their width differs, or the reference has fewer.
    """
    import numpy as np

    raw = [base64.b64decode(vector) for one in outcomes for vector in one.vectors]
    ours = _unit(np.frombuffer(b"".join(raw), np.float32).reshape(len(raw), -1))
    theirs = np.frombuffer(reference, np.float32)
    if len(theirs) % ours.shape[1] or len(theirs) < ours.size:
        raise RequestFailed(f"its vectors have {ours.shape[1]} numbers, and the reference's have not.")
    found: list[float] = (ours * _unit(theirs.reshape(-1, ours.shape[1])[: len(ours)])).sum(1).tolist()
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    import numpy as np

    wide = vectors.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
