"""The wire's types, each declared once: they check requests, write answers and make the OpenAPI document."""

LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI writes this


def finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def fingerprint(digest: str) -> str:
    """`system_fingerprint`: the build that answered."""
    return f"fp_{digest[:12]}"
