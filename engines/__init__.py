"""Engines: a process per model, from token ids to token ids. They know no HTTP and no text."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy multiplies no matrix here; its idle threads spin
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime starts its telemetry
