"""No child outlives its parent: the kernel is asked to signal it when the parent is gone."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here, for it is called between fork and exec


def end_with_parent(how: signal.Signals, parent: int) -> None:
    """Have this process sent `how` when its parent, the process `parent`, ends; at once if it has ended."""
    if _prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), how)
