"""How much of an engine the batch lane gets while interactive sequences run: a part of their time.

A step with more rows takes longer, and a chunk of a prompt holds up all streams. So while somebody waits for
an answer, what the batch lane takes has to be earned before it takes more: by a part of each second that
interactive sequences compute. Nobody is slowed down by more than that part and one run. Knows seconds only.
"""

from __future__ import annotations

PART = 0.15


class Share:
    def __init__(self) -> None:
        self._credit = 0.0  # seconds, never more than 0: what was not used in time is not kept

    @property
    def due(self) -> bool:
        """Whether the batch lane may have the next run."""
        return self._credit >= 0.0

    def note(self, seconds: float, own: float) -> None:
        """A run took so long, of which `own` seconds would have been for the interactive sequences alone."""
        self._credit = min(0.0, self._credit + PART * own - max(0.0, seconds - own))

    def forget(self) -> None:
        """Nobody waits any more."""
        self._credit = 0.0
