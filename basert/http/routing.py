"""Which of a model's replicas a request goes to: where its beginning is cached, else where least is to do.

Knows how busy each one is and what it was last given; no connection. A worker sees its own requests only.
"""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from basert.messages import Encode, Submit

BLOCK = 32  # tokens; prompts are compared in whole blocks
MOST_BLOCKS = 1 << 16  # that are remembered: two million tokens, 6 MB
# How many more requests the replica that has a prompt's beginning may have, all workers together: another
# computes that beginning once, and then has it, too.
MARGIN = 2


class Router:
    """`workers`: how many others like this one there are, this one included."""

    def __init__(self, workers: int = 1) -> None:
        self._last: OrderedDict[int, int] = OrderedDict()  # beginning -> the replica that had it last
        self._margin = MARGIN // workers

    def order(self, beginnings: Sequence[int], loads: Mapping[int, int]) -> list[int]:
        """Replicas, the best first. beginnings: see there; loads: inputs that each has open."""
        if len(loads) < 2:
            return list(loads)
        # Equal loads: by a hash, so that equal beginnings meet, whichever worker they come through.
        mark = beginnings[0] if beginnings else random.getrandbits(32)
        ranked = sorted(loads, key=lambda replica: (loads[replica], hash((mark, replica))))
        known = next((one for key in reversed(beginnings) if (one := self._last.get(key)) in loads), None)
        if known is not None and loads[known] <= loads[ranked[0]] + self._margin:
            ranked.remove(known)
            ranked.insert(0, known)
        return ranked

    def given(self, beginnings: Sequence[int], replica: int) -> None:
        """A request that begins so went there."""
        for key in beginnings:
            self._last[key] = replica
            self._last.move_to_end(key)
        while len(self._last) > MOST_BLOCKS:
            self._last.popitem(last=False)


def beginnings(request: Submit | Encode) -> list[int]:
    """Hashes of what an engine could keep of it, the shortest first: of a prompt's blocks, or of its sound.

    They are the same in all HTTP workers of a server.
    """
    if isinstance(request, Encode):
        return []
    if request.sound is not None:
        return [hash(request.sound.features[::997])]
    return list(_blocks(request))


def _blocks(request: Submit) -> Iterator[int]:
    key = hash((request.cache_salt, request.adapter))
    raw = array("I", request.prompt).tobytes()
    for begin, end in pairwise(range(0, len(raw) + 1, 4 * BLOCK)):
        key = hash((key, raw[begin:end]))
        yield key


def weight(request: Submit | Encode) -> int:
    """What it adds to a replica's load."""
    return len(request.inputs) if isinstance(request, Encode) else 1
