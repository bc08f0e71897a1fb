"""Export: offline, from a checkpoint to an engine bundle. It knows no server."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime starts its telemetry
