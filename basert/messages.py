"""Wire messages between HTTP workers, engines and the supervisor: plain structs, msgpack, tagged by "t".

Two kinds of connection, both Unix stream sockets, framed by `basert.frames`:

  worker -> engine        Submit or Encode, Cancel, StatsRequest
  engine -> worker        Ready (first, once), Tokens or Vectors, Failed, Stats
  engine -> supervisor    EngineReport while it loads, then Stats and AdapterDone when asked
  worker -> supervisor    Watch (first, once), WorkerReport, Prepared, Usage; an Order
  supervisor -> worker    Models whenever something changed, UsageRequest, an Outcome; Reload when other keys
                          are in force
  supervisor -> engine    StatsRequest (also its heartbeat), Drain, LoadAdapter, UnloadAdapter
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Base of all messages."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. temperature 0 is greedy; top_k 0, top_p 1, min_p 0 switch filters off.

    Order, as in transformers and vLLM: repetition, frequency and presence penalties, logit bias,
    what Submit forbids, temperature, top-k, top-p, min-p, draw. The draw depends on (seed, position) only.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0  # unsigned 64 bit; the HTTP worker draws one when the client named none
    logit_bias: dict[int, float] = {}


class Grammar(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer has to look like: llguidance's JSON list of grammars; a text that is none is GBNF."""

    text: str
    field: str = "response_format"  # of the request, that asked for it: errors name it


class Sound(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a speech model is to hear while it answers a prompt: one window of at most 30 s."""

    features: bytes  # log-mel, float32 little-endian [mels, 3000]
    timestamps: bool = True  # the answer has them, held to Whisper's rules; else none may be drawn
    alignment: bool = False  # Tokens.alignment is wanted


class Submit(Message, tag="submit", frozen=True):
    id: int  # unique on its connection
    prompt: list[int]
    max_tokens: int  # 0 only with prompt_logprobs >= 0: score the prompt, generate nothing
    sampling: Sampling = Sampling()
    stop_ids: list[int] = []  # beside the model's own end-of-sequence ids
    ignore_eos: bool = False
    min_tokens: int = 0  # before that no end-of-sequence or stop id may be drawn
    logprobs: int = -1  # -1 none; k >= 0: the drawn token's and the k best
    prompt_logprobs: int = -1  # likewise for every prompt token but the first
    priority: int = 0  # 0 interactive, 1 batch
    allowed_ids: list[int] = []  # nothing else may be drawn; [] leaves all of the vocabulary
    bad_words: list[list[int]] = []  # none of these may come in the answer, as tokens in this order
    cache_salt: str = ""  # prompts share what is computed only with prompts of the same one
    grammar: Grammar | None = None
    sound: Sound | None = None  # of a request to a speech model
    adapter: str = ""  # the name of the one that answers; "": the model itself


class Encode(Message, tag="encode", frozen=True):
    """Texts for an encoder, as token ids with their special tokens. Cancel and Failed hold for them, too."""

    id: int  # unique on its connection, among Submits as well
    inputs: list[list[int]]
    token_types: list[list[int]] = []  # as long as the inputs, for graphs that want them; []: all 0
    priority: int = 0  # 0 interactive, 1 batch


class Vectors(Message, tag="vectors", frozen=True):
    """What a batch yielded for one Encode: an answer for each of `indices`, its inputs' numbers."""

    id: int
    indices: list[int]
    data: bytes  # float32, little-endian [len(indices), width]
    last: bool = False  # with this all inputs are answered


class Cancel(Message, tag="cancel", frozen=True):
    id: int


class StatsRequest(Message, tag="stats?", frozen=True):
    id: int = 0


class Drain(Message, tag="drain", frozen=True):
    """Finish what runs, refuse what comes, then exit 0."""


class LoadAdapter(Message, tag="load-adapter", frozen=True):
    """Answered with AdapterDone when it can be used; at once when it is loaded already."""

    id: int  # unique on its connection, among UnloadAdapters as well
    path: str  # its bundle


class UnloadAdapter(Message, tag="unload-adapter", frozen=True):
    """Answered with AdapterDone when the last request that used it is over; none is let in meanwhile."""

    id: int
    name: str


class AdapterInfo(msgspec.Struct, frozen=True):
    """An adapter that is loaded."""

    name: str
    bundle: str  # path
    digest: str
    created: int  # Unix seconds


class AdapterDone(Message, tag="adapter-done", frozen=True):
    id: int
    error: str = ""  # one sentence, when it was not done
    adapter: AdapterInfo | None = None  # that was loaded


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities (natural) under the model's own distribution, before any sampling filter.

    A speech model's are those under what Whisper's rules leave of it, as openai-whisper's avg_logprob has it.
    """

    id: int
    logprob: float
    top: list[tuple[int, float]] = []
    rank: int = 0  # 1 for the likeliest token


class Tokens(Message, tag="tokens", frozen=True):
    """What one step yielded for one request. `finish` is set on a request's last message only."""

    id: int
    tokens: list[int] = []
    finish: str = ""  # "stop" (end of sequence or stop id: the last token of `tokens`) | "length"
    logprobs: list[TokenLogprob] = []
    prompt_logprobs: list[TokenLogprob] = []  # all at once, with the first tokens
    cached: int = 0  # prompt tokens taken from the prefix cache; with the first tokens
    no_speech: float = -1.0  # of a speech model: how likely the window has none; with the first tokens
    alignment: bytes = (
        b""  # float16 little-endian [len(tokens), heads, frames]: attention to the window, if wanted
    )


class Failed(Message, tag="failed", frozen=True):
    """A request's other end.

    Codes: queue_full, context_length_exceeded, invalid, no_adapter, draining, engine_failed.
    """

    id: int
    code: str
    message: str
    param: str = ""  # the request's field that is to blame, where one is


class EngineInfo(msgspec.Struct, frozen=True):
    model: str
    digest: str
    provider: str  # what runs it, as reported by the runtime
    slots: int
    max_context: int
    vocab_size: int
    max_queue: int
    pid: int
    load_seconds: float
    adapters: list[AdapterInfo] = []  # loaded at the start


class Ready(Message, tag="ready", frozen=True):
    info: EngineInfo


class EngineReport(Message, tag="report", frozen=True):
    """How loading goes: stage is one of "loading", "checking", "ready", "failed"."""

    model: str
    stage: str
    fraction: float = 0.0
    reason: str = ""  # one sentence, when failed
    info: EngineInfo | None = None  # when ready


class Histogram(msgspec.Struct, frozen=True):
    """A cumulative histogram: counts[i] observations were <= bounds[i]; the last count is all of them."""

    bounds: list[float]
    counts: list[int]
    sum: float


class BucketStats(msgspec.Struct, frozen=True):
    """One bucket of an encoder, since the engine started."""

    rows: int
    tokens: int
    runs: int = 0
    inputs: int = 0  # rows that were no padding
    input_tokens: int = 0  # tokens that were no padding
    run_seconds: float = 0.0


class Stats(Message, tag="stats", frozen=True):
    """An engine's counters since it started, and its gauges now."""

    id: int = 0
    running: int = 0
    waiting: int = 0
    slots: int = 0
    slots_used: int = 0
    kv_tokens: int = 0  # tokens held in KV slots
    requests_admitted: int = 0
    requests_finished: int = 0
    requests_cancelled: int = 0
    requests_refused: int = 0
    requests_failed: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0  # of prompt_tokens, those that were not computed but found
    prefix_queries: int = 0  # requests that looked for their beginning in the cache
    prefix_hits: int = 0  # of which found some
    prefix_evictions: int = 0  # prompts that were overwritten to make room
    retained_tokens: int = 0  # tokens that free slots hold for later prompts
    decode_steps: int = 0
    prefill_steps: int = 0
    padded_tokens: int = 0  # computed for nothing: bucket padding, idle rows, wrong guesses
    computed_tokens: int = 0  # all tokens that went through the graph, padding included
    drafted_tokens: int = 0  # guessed, to be verified
    accepted_tokens: int = 0  # of these, the ones that were right
    constrained_tokens: int = 0  # drawn under a grammar
    held_tokens: int = 0  # rows computed once more, their grammar not having said in time what may come
    mask_seconds: float = 0.0  # that steps waited for grammars
    windows_heard: int = 0  # of sound, by a speech model's listener
    windows_reused: int = 0  # requests whose window a slot had heard already
    listen_seconds: float = 0.0  # of run_seconds, those inside the listener
    grammars_compiled: int = 0
    grammars_reused: int = 0  # requests whose grammar was there already
    step_seconds: float = 0.0  # wall time inside step()
    run_seconds: float = 0.0  # of which inside the graph
    batch_size: Histogram | None = None  # rows of decode steps that worked
    queue_seconds: Histogram | None = None  # from Submit to a slot
    resident_bytes: int = 0
    buckets: list[BucketStats] = []  # of an encoder
    input_tokens: Histogram | None = None  # of an encoder: lengths of its inputs


class Watch(Message, tag="watch", frozen=True):
    pid: int
    listens: bool = True  # to clients: the server is ready when one can answer, and a drain waits for them


class WorkerReport(Message, tag="worker", frozen=True):
    """How many requests this worker has open: sent when it can answer, and on changes while it drains."""

    open_requests: int


class Prepared(Message, tag="prepared", frozen=True):
    """A worker can serve a build of a model as soon as its engines can, or cannot, for a reason."""

    build: int
    reason: str = ""


class UsageRequest(Message, tag="usage?", frozen=True):
    serial: int


class Usage(Message, tag="usage", frozen=True):
    """What a worker does with its models: the answer to a UsageRequest, and whenever it is done with a build
    that has no name any more. In order on the connection: what was told before the question is known to it.
    """

    serial: int  # of the last question
    open: dict[int, int] = {}  # by build: requests that hold it, from the choice of the model to their end
    used: dict[int, float] = {}  # by build: when one last began or ended, by time.monotonic


class LoadModel(Message, tag="load", frozen=True):
    id: int  # of the order, unique on its connection
    model: str


class UnloadModel(Message, tag="unload", frozen=True):
    id: int
    model: str


class SwapModel(Message, tag="swap", frozen=True):
    """Let `alias` mean `model`, once that can answer."""

    id: int
    alias: str
    model: str


class WakeModel(Message, tag="wake", frozen=True):
    """A request waits for a model that was unloaded for want of any."""

    id: int
    build: int


class LoadLora(Message, tag="load-lora", frozen=True):
    """Load an adapter of the store into every engine of a model."""

    id: int
    lora: str
    model: str = ""  # that it belongs to; else whichever it was exported for


class UnloadLora(Message, tag="unload-lora", frozen=True):
    id: int
    lora: str


Order = LoadModel | UnloadModel | SwapModel | WakeModel | LoadLora | UnloadLora


class Outcome(Message, tag="outcome", frozen=True):
    """An order was carried out, or (a status other than 200) why not."""

    id: int
    status: int = 200  # as HTTP has it
    message: str = ""
    code: str = ""
    param: str = ""
    retry_after: float = 0.0  # seconds


class EngineState(msgspec.Struct, frozen=True):
    """One engine of a model."""

    id: int  # no other engine of this server ever has it
    state: str = "loading"  # "loading" | "ready" | "restarting" | "failed"
    socket: str = ""  # path; connect only when ready
    reason: str = ""
    stage: str = ""  # of loading, see EngineReport
    fraction: float = 0.0  # of loading
    restarts: int = 0
    info: EngineInfo | None = None  # when ready


class ModelState(msgspec.Struct, frozen=True):
    """One build of a model. Two of them stand side by side while one takes the other's place."""

    id: int  # no other build of this server ever has it
    name: str
    bundle: str  # path
    digest: str
    # "loading" | "ready" | "restarting" | "failed"; "asleep": unloaded until somebody asks for it, "waking";
    # "unloading": what has begun may end
    state: str
    replicas: list[EngineState] = []
    names: list[str] = []  # what clients call it now, its own first
    awaited_by: list[str] = []  # the names that it takes over once it is ready
    reason: str = ""
    adapters: list[AdapterInfo] = []  # what clients may ask for beside it
    max_context: int = 0  # tokens of prompt and answer together, as its engines are started
    needed: bool = True  # the server is not ready before it is


class Models(Message, tag="models", frozen=True):
    models: list[ModelState]
    draining: bool = False
    drain_seconds: float = 0.0  # open streams may go on for this long, then end with an error event


class Reload(Message, tag="reload", frozen=True):
    """Read the API keys again."""


AnyMessage = (
    Submit
    | Encode
    | Cancel
    | StatsRequest
    | Drain
    | Tokens
    | Vectors
    | Failed
    | Ready
    | EngineReport
    | Stats
    | Watch
    | WorkerReport
    | Prepared
    | UsageRequest
    | Usage
    | LoadModel
    | UnloadModel
    | SwapModel
    | WakeModel
    | LoadLora
    | UnloadLora
    | Outcome
    | Models
    | Reload
    | LoadAdapter
    | UnloadAdapter
    | AdapterDone
)
