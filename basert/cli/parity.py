"""How close a bundle is to its checkpoint, in a line for people."""

from __future__ import annotations

from basert.manifest import Encoder, Manifest, ParityNumbers, Speech


def parity_line(manifest: Manifest) -> str:
    if manifest.speech is not None:
        return "; ".join(_speech(manifest.speech))
    if manifest.parity is not None:
        return numbers_line(manifest.parity)
    return "; ".join(_encoder(manifest.encoder)) if manifest.encoder else "not measured"


def numbers_line(numbers: ParityNumbers) -> str:
    return (
        f"over {numbers.tokens:,} tokens: same best token {numbers.greedy_agreement:.1%},"
        f" KL divergence {numbers.kl_divergence:.2g}, perplexity x{numbers.perplexity_ratio:.4f},"
        f" largest logit difference {numbers.max_logit_difference:.2g}"
    )


def _speech(speech: Speech) -> list[str]:
    return [
        f"{target}: over {numbers.windows} windows and {numbers.tokens:,} tokens, same best token"
        f" {numbers.greedy_agreement:.1%}, KL divergence {numbers.kl_divergence:.2g}, largest difference of"
        f" what is heard {numbers.encoder_difference:.2g} deviations"
        for target, numbers in speech.parity.items()
    ]


def _encoder(encoder: Encoder) -> list[str]:
    return [
        f"{target}: over {numbers.texts} texts, cosine {numbers.mean_cosine:.5f} (least"
        f" {numbers.min_cosine:.5f}), rank agreement {numbers.rank_agreement:.4f},"
        f" largest difference {numbers.max_difference:.2g}"
        for target, numbers in encoder.parity.items()
    ]
