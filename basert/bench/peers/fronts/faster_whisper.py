"""faster-whisper behind the front, plain or as its pipeline that takes a recording's windows in batches."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from basert.bench.peers.fronts.transcriptions import Front, Transcriber


class FasterWhisper(Transcriber):
    def __init__(self, model: Path, dtype: str, threads: int, workers: int, batch: int) -> None:
        """threads: of each worker. batch: windows at a time; 0: one after the other, as Whisper does it."""
        self.workers = workers
        plain = WhisperModel(
            str(model), device="cpu", compute_type=dtype, cpu_threads=threads, num_workers=workers
        )
        self._model = BatchedInferencePipeline(plain) if batch else plain
        self._more: dict[str, Any] = {"batch_size": batch} if batch else {"condition_on_previous_text": False}

    def transcribe(self, sound: bytes, *, segments: bool, words: bool) -> dict[str, Any]:
        """Greedy: one beam, as all that are compared."""
        found, _ = self._model.transcribe(
            io.BytesIO(sound),
            language="en",
            beam_size=1,
            vad_filter=True,
            without_timestamps=not segments,
            word_timestamps=words,
            **self._more,
        )
        heard = list(found)
        answer: dict[str, Any] = {"text": "".join(one.text for one in heard).strip()}
        if segments:
            answer["segments"] = [{"start": one.start, "end": one.end, "text": one.text} for one in heard]
        if words:
            spoken = [word for one in heard for word in one.words or ()]
            answer["words"] = [{"start": one.start, "end": one.end, "word": one.word} for one in spoken]
        return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    for name in ("threads", "workers", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    model = FasterWhisper(args.model, args.dtype, args.threads, args.workers, args.batch)
    Front(model, args.name).serve(args.port)


if __name__ == "__main__":
    main()
