"""Every setting of `basert serve`, declared once: name, type, default, bounds and help.

basert.settings derives the flags, the variables BASERT_<NAME>, the keys of the TOML file and `--print-config`
from these declarations. Knows nothing of processes, sockets or HTTP.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from basert import cpus, keys, settings, signing
from basert.errors import ConfigError
from basert.keys import MOST_PER_MINUTE, Key
from basert.paths import expand
from basert.reasoning import formats as reasoning
from basert.settings import Help, Loaded
from basert.tools import formats as tools

POSTGRESQL = "postgresql+psycopg://"


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """What the HTTP app reads."""

    api_key: Annotated[
        tuple[str, ...], Help("A key clients send as bearer token, or sha256:HASH; repeats.", secret=True)
    ] = ()
    api_key_file: Annotated[
        Path | None,
        Help("A file of keys, one a line, and what each may do; read again when it changes, and on SIGHUP."),
    ] = None
    rate_limit: Annotated[
        int | None,
        Help("Requests a minute from one address, on a server without keys.", least=1, most=MOST_PER_MINUTE),
    ] = None
    rate_limit_tokens: Annotated[
        int | None,
        Help("Tokens a minute for one address, on a server without keys.", least=1, most=MOST_PER_MINUTE),
    ] = None
    client_address_header: Annotated[
        str | None,
        Help("Header in which the proxy before this server names its client, as X-Forwarded-For."),
    ] = None
    protect_metrics: Annotated[bool, Help("Ask for a key at /metrics as well.")] = False
    max_tokens: Annotated[
        int | None, Help("Tokens to generate when a request does not say; else the context's rest.", least=1)
    ] = None
    request_timeout: Annotated[float, Help("Seconds a request may take in all; 0: no limit.", least=0)] = (
        600.0
    )
    keep_alive_interval: Annotated[
        float, Help("Seconds of silence after which a waiting stream gets a comment line.", least=0.1)
    ] = 10.0
    max_body_bytes: Annotated[
        int, Help("Largest request body; a larger one is answered 413.", least=1024)
    ] = 16 << 20
    body_timeout: Annotated[float, Help("Seconds a client may take to send its body.", least=0.1)] = 30.0
    stall_timeout: Annotated[
        float, Help("Seconds a client may leave a stream unread before it is taken for gone.", least=0.1)
    ] = 60.0
    max_json_depth: Annotated[int, Help("Deepest nesting of a JSON body.", least=4, most=500)] = 64
    max_messages: Annotated[int, Help("Most messages of a chat request.", least=1)] = 2048
    max_inputs: Annotated[
        int, Help("Most texts of a request for embeddings, scores or a ranking.", least=1)
    ] = 2048
    max_prompt_bytes: Annotated[
        int, Help("Longest prompt as text, checked before it is tokenised.", least=1)
    ] = 4 << 20
    max_audio_bytes: Annotated[int, Help("Largest sound file; a larger one is answered 413.", least=1024)] = (
        25 << 20
    )
    max_audio_seconds: Annotated[
        float, Help("Longest recording; 230 MB of memory an hour while it is transcribed.", least=1)
    ] = 7200.0
    responses_ttl: Annotated[
        float, Help("Seconds that /v1/responses keeps a response; 0 keeps none.", least=0)
    ] = 3600.0
    responses_max_bytes: Annotated[
        int, Help("What all kept responses may take; the oldest go first.", least=1 << 20)
    ] = 64 << 20
    files_dir: Annotated[
        Path | None, Help("Keep files, and run batches of requests, here: /v1/files and /v1/batches.")
    ] = None
    files_max_bytes: Annotated[int, Help("Largest file; a larger one is answered 413.", least=1024)] = (
        512 << 20
    )
    files_quota_bytes: Annotated[
        int | None, Help("What all files may take together; else as much as the disk has.", least=1024)
    ] = None
    files_key_quota_bytes: Annotated[
        int | None, Help("What the files of one key may take together.", least=1024)
    ] = None
    files_expiry: Annotated[
        int,
        Help("Seconds that a file is kept when its upload names none; 0: until it is deleted.", least=0),
    ] = 30 * 86400
    database_url: Annotated[
        str | None,
        Help(
            "Where files and batches are recorded: postgresql+psycopg://…; else in --files-dir.", secret=True
        ),
    ] = None
    batch_max_lines: Annotated[int, Help("Most requests of a batch.", least=1)] = 50_000
    batch_window: Annotated[int, Help("Seconds after which a batch expires that is not done.", least=1)] = (
        86400
    )
    batch_lines: Annotated[
        int | None,
        Help("Lines of batches that a model works on at once; else three quarters of its slots.", least=1),
    ] = None
    tool_format: Annotated[
        str,
        Help("How models write tool calls; else as their template tells.", choices=("auto", *tools.FORMATS)),
    ] = "auto"
    reasoning_format: Annotated[
        str,
        Help(
            "How models mark their thoughts; else as their chat template tells.",
            choices=("auto", "none", *reasoning.FORMATS),
        ),
    ] = "auto"

    def read_keys(self) -> list[Key]:
        """The keys in force now: those given directly and those in the file. Raises ConfigError."""
        return keys.read(self.api_key, self.api_key_file)


@dataclass(frozen=True, kw_only=True)
class ServeConfig(AppConfig):
    """All settings of a server."""

    model: Annotated[
        tuple[str, ...], Help("A bundle to serve: its name in the store or its folder; repeats.")
    ] = ()
    served_model_name: Annotated[
        tuple[str, ...], Help("What clients call the model; repeats; only with a single model.")
    ] = ()
    require_signature: Annotated[
        Path | None, Help("Serve only bundles that were signed with the other half of this public key.")
    ] = None
    host: Annotated[str, Help("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Help("Port to listen on; 0 takes a free one.", least=0, most=65535)] = 8080
    workers: Annotated[
        int | None, Help("HTTP worker processes; else one per four cores.", least=1, most=64)
    ] = None
    keep_alive_timeout: Annotated[
        int, Help("Seconds a connection may be without a request, before the first one too.", least=1)
    ] = 75
    alias: Annotated[
        tuple[str, ...], Help("Another name for a served model, as NAME=MODEL; repeats; see `basert swap`.")
    ] = ()
    idle_timeout: Annotated[
        float,
        Help("Seconds after which an unused model is unloaded until its next request; 0: never.", least=0),
    ] = 0.0
    max_loaded: Annotated[
        int | None,
        Help("Models in memory at once; the longest unused one makes room for another.", least=1),
    ] = None
    replicas: Annotated[
        int, Help("Engines of each model, which share its requests and its CPUs.", least=1, most=64)
    ] = 1
    max_context: Annotated[
        int | None, Help("Longest prompt and answer together, in tokens; else the bundle's own.", least=1)
    ] = None
    continuous_batching: Annotated[
        int | None, Help("Slots: sequences decoded together; else the bundle's own.", least=1, most=1024)
    ] = None
    max_queue: Annotated[
        int | None, Help("Requests that may wait for a slot; more are answered 429.", least=0)
    ] = None
    batch_wait: Annotated[
        float | None,
        Help("Milliseconds that an encoder's texts wait for others to share a batch.", least=0, most=1000),
    ] = None
    provider: Annotated[
        str | None, Help("What runs the models, as cpu or openvino; else whatever is the fastest here.")
    ] = None
    threads: Annotated[
        int | None, Help("Threads an engine computes with; else one per core.", least=1, most=1024)
    ] = None
    cpus: Annotated[
        str | None,
        Help("CPUs an engine may use, as 0-3,8; for several models a list each, as 0-3/4-7; else all."),
    ] = None
    numa_node: Annotated[
        int | None, Help("Keep the engines on the CPUs, and so in the memory, of this NUMA node.", least=0)
    ] = None
    lora: Annotated[
        tuple[str, ...],
        Help("An adapter to serve with its model: its name in the store or its folder; repeats."),
    ] = ()
    max_loras: Annotated[
        int, Help("Adapters that a model may have loaded at once; 0: none.", least=0, most=256)
    ] = 8
    spin: Annotated[bool | None, Help("Let an engine's threads spin while it works.")] = None
    speculation: Annotated[
        bool, Help("Let a stream that runs alone guess its next tokens; no answer changes.")
    ] = True
    prefix_cache: Annotated[bool, Help("Compute what prompts begin with in common only once.")] = True
    prefix_cache_file: Annotated[
        Path | None,
        Help("Keep what is cached here from one start to the next; with several models, each at PATH.MODEL."),
    ] = None
    drain_timeout: Annotated[
        float,
        Help("Seconds open streams may go on after SIGTERM; the rest end with an error event.", least=0),
    ] = 30.0
    start_timeout: Annotated[float, Help("Seconds an engine may take to load.", least=1)] = 600.0
    heartbeat_timeout: Annotated[
        float, Help("Seconds an engine may be silent before it is killed and restarted.", least=0.5)
    ] = 60.0
    restart_limit: Annotated[
        int, Help("Deaths in quick succession after which a model is given up.", least=1)
    ] = 5
    restart_backoff: Annotated[float, Help("Seconds before the first restart; then doubled.", least=0.01)] = (
        0.2
    )
    restart_backoff_max: Annotated[float, Help("Most seconds before a restart.", least=0.01)] = 10.0
    run_dir: Annotated[
        Path | None,
        Help("Where the private run folder goes; else $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, /tmp."),
    ] = None
    log_file: Annotated[Path | None, Help("Log here, not to standard error; opened again on SIGHUP.")] = None
    log_format: Annotated[str, Help("How log lines are written.", choices=("text", "json"))] = "text"
    log_level: Annotated[
        str, Help("Least important lines to log.", choices=("debug", "info", "warning", "error"))
    ] = "info"
    access_log: Annotated[bool, Help("Log one line per request.")] = True

    def engine_cpus(self, number: int | None) -> str | None:
        """The CPU list of the model with this number; one list is for all. None: nothing was said.

        A model that was loaded later, and has no number, gets all CPUs that are listed.
        """
        if self.cpus is None:
            return None
        lists = self.cpus.split("/")
        return ",".join(lists) if number is None else lists[number if len(lists) > 1 else 0]

    @property
    def worker_count(self) -> int:
        return self.workers or max(1, (os.cpu_count() or 1) // 4)


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> Loaded[ServeConfig]:
    """Flag over environment over file (also named by BASERT_CONFIG) over default. Raises ConfigError."""
    if file is None and environ.get("BASERT_CONFIG"):
        file = expand(environ["BASERT_CONFIG"])
    loaded = settings.load(ServeConfig, flags, environ, file)
    _check_together(loaded)
    return loaded


def _check_together(loaded: Loaded[ServeConfig]) -> None:
    """What no single setting shows."""
    config, sources = loaded.config, loaded.sources
    if config.served_model_name and len(config.model) > 1:
        raise ConfigError(
            f"--served-model-name ({sources['served_model_name']}) renames a single model, but "
            f"{len(config.model)} are served; leave it out or serve one."
        )
    if config.log_file is not None and not config.log_file.absolute().parent.is_dir():
        folder = config.log_file.absolute().parent
        raise ConfigError(f"--log-file ({sources['log_file']}): there is no folder {folder}; make it first.")
    _check_cpus(config, sources)
    _check_aliases(config.alias, sources)
    _check_prefix_file(config.prefix_cache_file, loaded)
    if config.require_signature is not None:
        signing.check_key(config.require_signature, f"--require-signature ({sources['require_signature']})")
    _check_files(config, sources)
    _check_limits(config, sources, is_open=not config.read_keys())


def _check_limits(config: ServeConfig, sources: Mapping[str, str], *, is_open: bool) -> None:
    for name in ("rate_limit", "rate_limit_tokens"):
        if getattr(config, name) is not None and not is_open:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{flag} ({sources[name]}) is for a server without keys; leave it out, and write "
                "requests-per-minute= and tokens-per-minute= behind a key in --api-key-file."
            )


def _check_prefix_file(path: Path | None, loaded: Loaded[ServeConfig]) -> None:
    if path is None:
        return
    flag = f"--prefix-cache-file ({loaded.sources['prefix_cache_file']})"
    if not loaded.config.prefix_cache:
        raise ConfigError(
            f"{flag} needs the prefix cache, which {loaded.sources['prefix_cache']} switches off; "
            "leave one of them out."
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"{flag}: {path} must be a file, or a new name, in a folder that exists.")


def _check_files(config: ServeConfig, sources: Mapping[str, str]) -> None:
    if config.database_url is None:
        return
    flag = f"--database-url ({sources['database_url']})"
    if config.files_dir is None:
        raise ConfigError(
            f"{flag} is for files and batches, which --files-dir switches on; name that as well."
        )
    if not config.database_url.startswith(POSTGRESQL):
        raise ConfigError(f"{flag} must begin with {POSTGRESQL}; leave it out for a database in --files-dir.")


def _check_cpus(config: ServeConfig, sources: Mapping[str, str]) -> None:
    node, where = config.numa_node, f"--cpus ({sources['cpus']})"
    if node is not None and config.cpus is not None:
        raise ConfigError(f"{where} and --numa-node ({sources['numa_node']}) name CPUs both; leave one out.")
    if node is not None:
        cpus.of_node(node, f"--numa-node ({sources['numa_node']})")
    lists = config.cpus.split("/") if config.cpus is not None else []
    models = len(config.model) or 1
    if len(lists) > 1 and len(lists) != models:
        raise ConfigError(
            f"{where} has {len(lists)} lists for {models} models; give each its own, or all one."
        )
    for text in lists:
        cpus.parse(text, where)


def _check_aliases(aliases: tuple[str, ...], sources: Mapping[str, str]) -> None:
    where = f"--alias ({sources['alias']})"
    for one in aliases:
        name, _, model = one.partition("=")
        if not name or not model:
            raise ConfigError(f"{where}: NAME=MODEL is wanted, not {one!r}.")
    names = [one.partition("=")[0] for one in aliases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{where}: {twice.pop()} stands for two models; choose one.")


def to_json(config: ServeConfig) -> bytes:
    """For the HTTP workers, by way of a file that only this user may read."""
    return msgspec.json.encode(dataclasses.asdict(config), enc_hook=str)


def from_json(raw: bytes) -> ServeConfig:
    return msgspec.json.decode(raw, type=ServeConfig, dec_hook=lambda kind, value: kind(value))
