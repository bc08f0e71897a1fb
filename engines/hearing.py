"""What a speech model's decoder reads and answers besides: what its rows have heard, and where they listened.

inputs   cross.{i}.key and .value [batch, heads, frames, head_dim], the listener's; with alignment heads
         align_idx[aligned] i64, which positions (as in logits_idx) want theirs
outputs  alignment[aligned, heads, frames] f32, if there are any; heard.{i}.key and .value, cross.{i} written
         over itself, where the graph reads 8 bits: an operator insists on it
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from basert.manifest import Graph, Speech
from engines.listener import Listener

ALIGN, ALIGNMENT = "align_idx", "alignment"
CROSS, HEARD = "cross.", "heard."


class Hearing:
    def __init__(self, listener: Listener, decoder: Graph, speech: Speech, rows: int) -> None:
        """rows: the most of a batch."""
        self.listener = listener
        self._aligns = speech.alignment_heads > 0
        self._writes = any(tensor.name.startswith(HEARD) for tensor in decoder.outputs)
        self._alignment = np.empty((rows, speech.alignment_heads, speech.frames), np.float32)

    def feeds(self, first: int, rows: int, aligned: int) -> dict[str, NDArray[Any]]:
        """For a window of rows, in which so many want alignment."""
        wanted = {ALIGN: np.zeros(aligned, np.int64)} if self._aligns else {}
        return {**self.listener.rows(first, rows), **wanted}

    def fetches(self, first: int, rows: int, aligned: int) -> dict[str, NDArray[Any]]:
        told = {ALIGNMENT: self._alignment[:aligned]} if aligned else {}
        if not self._writes:
            return told
        heard = self.listener.rows(first, rows)
        return told | {name.replace(CROSS, HEARD): cross for name, cross in heard.items()}
