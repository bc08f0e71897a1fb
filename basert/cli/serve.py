"""`basert serve`: flags -> configuration -> one supervisor; the flags are basert.config's declarations."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from basert import config, logs, progress, settings, signing, store
from basert.adapter import Adapter, check_base, read_adapter
from basert.cli.completion import bundle_names
from basert.cli.rooms import check_audio_extra, find_bundle
from basert.cli.welcome import print_welcome
from basert.config import ServeConfig
from basert.errors import ConfigError
from basert.keys import HASHED
from basert.manifest import Manifest, check_whole, read_manifest
from basert.supervisor.fleet import Served
from basert.supervisor.folder import RunFolder
from basert.supervisor.listener import address, listen
from basert.supervisor.run import Supervisor


def _option(one: settings.Setting) -> click.Option:
    """Texts all: the configuration parses flags, variables and file entries alike."""
    shown = "" if one.default in (None, ()) else f"  [default: {one.shown(one.default)}]"
    help_text = f"{one.help.text}{shown}"
    if one.kind is bool:
        return click.Option([f"{one.flag}/--no-{one.key}", one.name], default=None, help=help_text)
    metavar = "|".join(one.help.choices) or {int: "N", float: "SECONDS", Path: "PATH"}.get(one.kind, "TEXT")
    return click.Option([one.flag, one.name], multiple=one.repeats, metavar=metavar, help=help_text)


def _serve(models: tuple[str, ...], config_file: Path | None, print_config: bool, **flags: Any) -> None:
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if models:
        given["model"] = models + given.get("model", ())
    loaded = config.load(given, os.environ, config_file)
    if print_config:
        click.echo(loaded.table())
        return
    _run(loaded.config)


command = click.Command(
    "serve",
    callback=_serve,
    help="""Serve bundles over the OpenAI HTTP API until SIGTERM or Ctrl-C.

    MODEL is a bundle's name in the store (`basert list`) or its folder; without any, the store's only bundle.
    Each setting below may also be a variable (--max-queue: BASERT_MAX_QUEUE) or an entry of the TOML file
    (max-queue = 64); a flag wins over the variable, that over the file.""",
    params=[
        click.Argument(["models"], nargs=-1, metavar="[MODEL]...", shell_complete=bundle_names),
        click.Option(
            ["--config", "config_file"],
            type=click.Path(path_type=Path),
            help="Read settings from this TOML file; also BASERT_CONFIG.",
        ),
        click.Option(["--print-config"], is_flag=True, help="Show every setting and its source, and end."),
        *map(_option, settings.declared(ServeConfig).values()),
    ],
)


def _run(settings: ServeConfig) -> None:
    served = _served(settings)
    if settings.files_dir is not None:
        from basert.jobs import office  # which brings a database along

        office.prepare(settings)
    listener = listen(settings.host, settings.port, os.environ)
    folder = RunFolder.below(settings.run_dir, os.environ)
    try:
        output = _open_log(settings)
        logs.setup("supervisor", settings.log_format, settings.log_level, output)
        url = "http://{}:{}".format(*address(listener))
        welcome = _welcome(url, served, settings)
        supervisor = Supervisor(settings, served, folder.path, listener, output, welcome)
        asyncio.run(supervisor.run())
    finally:
        folder.remove()
        listener.close()


def _open_log(settings: ServeConfig) -> logs.Output:
    try:
        return logs.Output(settings.log_file)
    except OSError as error:
        raise ConfigError(f"--log-file {settings.log_file} cannot be written: {error.strerror}.") from None


def _served(settings: ServeConfig) -> list[Served]:
    """What to serve, and under which names. Raises BundleError, ConfigError."""
    folders = [find_bundle(model) for model in settings.model] or _only_bundle()
    if settings.require_signature is not None:
        _check_signatures(folders, settings.require_signature)
    manifests = [read_manifest(folder) for folder in folders]
    names = [manifest.name for manifest in manifests]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"--model: two bundles are named {twice.pop()}; export one of them under another name."
        )
    for folder, manifest in zip(folders, manifests, strict=True):
        check_whole(folder, manifest)
        _check_context(settings, manifest)
        if manifest.speech is not None:
            check_audio_extra(manifest.name)
    if settings.served_model_name:
        name, *aliases = settings.served_model_name
        served = [Served(name, folders[0], (*aliases, names[0]))]
    else:
        served = [Served(name, folder) for name, folder in zip(names, folders, strict=True)]
    return _with_adapters(_with_aliases(served, settings.alias), manifests, settings)


def _with_aliases(served: list[Served], aliases: tuple[str, ...]) -> list[Served]:
    """aliases: NAME=MODEL each. Raises ConfigError."""
    for alias, model in (one.split("=", 1) for one in aliases):
        taken = {name for one in served for name in (one.name, *one.aliases)}
        if alias in taken:
            raise ConfigError(
                f"--alias {alias}={model}: a model is called {alias} already; choose another name."
            )
        if model not in taken:
            names = ", ".join(one.name for one in served)
            raise ConfigError(f"--alias {alias}={model}: {model} is not served; name one of {names}.")
        served = [
            dataclasses.replace(one, aliases=(*one.aliases, alias))
            if model in (one.name, *one.aliases)
            else one
            for one in served
        ]
    return served


def _with_adapters(served: list[Served], manifests: list[Manifest], settings: ServeConfig) -> list[Served]:
    """Each model with those of --lora that were exported for it. Raises BundleError, ConfigError."""
    found: list[list[Path]] = [[] for _ in served]
    taken = {name for one in served for name in (one.name, *one.aliases)}
    paths = [store.find_adapter(given) for given in settings.lora]
    if settings.require_signature is not None:
        _check_signatures(paths, settings.require_signature)
    for path in paths:
        adapter = read_adapter(path)
        if adapter.name in taken:
            raise ConfigError(
                f"--lora: there are two of the name {adapter.name}; export one under another name."
            )
        taken.add(adapter.name)
        found[_base_of(adapter, manifests)].append(path)
    if any(len(paths) > settings.max_loras for paths in found):
        raise ConfigError(
            f"--lora names more adapters than --max-loras {settings.max_loras} allows; raise it."
        )
    return [dataclasses.replace(one, adapters=tuple(its)) for one, its in zip(served, found, strict=True)]


def _base_of(adapter: Adapter, manifests: list[Manifest]) -> int:
    """The place of the model that it was exported for. Raises BundleError when that is not served."""
    fits = [one.lora is not None and one.lora.base == adapter.base_hash for one in manifests]
    if not any(fits):
        named = [one for one in manifests if one.name == adapter.base]
        check_base(adapter, (named or manifests)[0])
    return fits.index(True)


def _check_signatures(folders: list[Path], key: Path) -> None:
    """Before anything of a bundle is read. Raises BundleError."""
    for folder in folders:
        with progress.task(f"signature of {folder.name}"):
            signing.verify(folder, key)


def _only_bundle() -> list[Path]:
    match store.bundles():
        case [bundle]:
            return [bundle]
        case []:
            raise ConfigError(
                f"There is nothing to serve in {store.store_root()}; `basert export smollm2` makes it."
            )
        case several:
            names = ", ".join(bundle.name for bundle in several)
            raise ConfigError(f"Say which MODEL to serve: {names}.")


def _check_context(settings: ServeConfig, manifest: Manifest) -> None:
    if settings.max_context is not None and settings.max_context > manifest.max_context:
        raise ConfigError(
            f"--max-context {settings.max_context} is more than the {manifest.max_context} tokens that "
            f"{manifest.name} was exported for; lower it, or export the model again with more."
        )


def _welcome(url: str, served: list[Served], settings: ServeConfig) -> Callable[[list[str]], None]:
    """What to do when models are ready. Files are read now: by then they may have gone."""
    keys = _shown_keys(settings)
    manifests = {one.name: read_manifest(one.bundle) for one in served}

    def welcome(ready: list[str]) -> None:
        name = next((one for one in ready if one in manifests), "")
        if not name:  # something else was loaded in its place meanwhile
            return
        manifest = manifests[name]
        hears = manifest.speech is not None
        print_welcome(url, name, keys, chats=manifest.has_chat_template, hears=hears)

    return welcome


def _shown_keys(settings: ServeConfig) -> list[str]:
    """What can stand in a request to paste. Of the keys in a file only the hashes are known."""
    given = [key for key in settings.api_key if not key.startswith(HASHED)]
    return given or ["$BASERT_API_KEY"] * bool(settings.read_keys())
