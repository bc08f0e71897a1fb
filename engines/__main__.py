"""`python -m engines`: one model's engine process. Receive, step, reply; nothing else happens here.

It waits in poll() without using any CPU while nothing runs. It ends when it is drained (SIGTERM, Drain), when
the supervisor it reports to is gone, or with status 1 when it cannot load or its runtime is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from basert import cpus, logs, store
from basert.errors import BasertError
from basert.manifest import read_manifest
from basert.messages import EngineInfo, EngineReport, Ready
from engines.base import BaseEngine
from engines.hub import Hub
from engines.loading import AUTO, EngineConfig, load

PR_SET_PDEATHSIG = 1
NO_PEER = 0  # what Hub.send skips

_log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Run one engine until it is drained. Exit status 1 when it cannot load, or breaks."""
    args = parse(argv)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    logs.setup(f"engine {args.name or args.bundle.name}", args.log_format)
    try:
        sys.exit(run(args))
    except BasertError as error:
        _log.error("%s", error.message)
    except OSError as error:
        _log.error("cannot talk to its peers: %s", error)
    except Exception:
        _log.critical("the runtime is broken; this engine ends", exc_info=True)
    sys.exit(1)


def run(args: argparse.Namespace) -> int:
    # Ctrl-C reaches the supervisor too, which drains us in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN if args.control else signal.SIG_DFL)
    hub = Hub()
    control = hub.connect(args.control) if args.control else NO_PEER
    with contextlib.ExitStack() as ending:
        ending.callback(hub.close)
        engine, info = open_engine(args, hub, control, ending)
        hub.wake_on_signals()
        signal.signal(signal.SIGTERM, lambda *_: engine.drain())
        if not args.control:
            signal.signal(signal.SIGINT, lambda *_: engine.drain())
        hub.greeting = lambda: [Ready(info)]
        hub.listen(args.socket)
        hub.send(control, [EngineReport(info.model, "ready", 1.0, info=info)])
        _log.info(
            "ready after %.2f s: %d slots of %d tokens on %s",
            info.load_seconds,
            info.slots,
            info.max_context,
            info.provider,
        )
        return serve_forever(engine, hub, control)


def open_engine(
    args: argparse.Namespace, hub: Hub, control: int, ending: contextlib.ExitStack
) -> tuple[BaseEngine, EngineInfo]:
    """Load the bundle, held until `ending`, telling the supervisor how it goes."""
    name = args.name or args.bundle.name

    def report(stage: str, fraction: float) -> None:
        _log.info("%s", stage)
        hub.send(control, [EngineReport(name, stage, fraction)])

    try:
        _settle(args)
        read_manifest(args.bundle)  # what is wrong with it, it says better than the hold
        ending.enter_context(store.hold(args.bundle))
        engine, info = load(_config(args), hub.send, report, hub.wake)
    except Exception as error:
        hub.send(control, [EngineReport(name, "failed", reason=str(error))])
        raise
    ending.callback(engine.close)
    return engine, info


def _settle(args: argparse.Namespace) -> None:
    """Stay on the CPUs that were asked for, before any thread starts; memory comes from their node by itself.

    Raises ConfigError for CPUs that cannot be had.
    """
    if args.cpus:
        os.sched_setaffinity(0, cpus.parse(args.cpus, "--cpus"))
    elif args.numa_node is not None:
        os.sched_setaffinity(0, cpus.of_node(args.numa_node, "--numa-node"))


def serve_forever(engine: BaseEngine, hub: Hub, control: int) -> int:
    """Until drained: 0; or until the supervisor is lost: 1."""
    while engine.busy or not engine.draining:
        for peer, message in hub.poll(engine.patience):
            if peer == control and message is None:
                _log.error("the supervisor is gone; this engine ends")
                return 1
            engine.receive(peer, message)
        engine.step()
    engine.save()
    _log.info("drained")
    return 0


def _config(args: argparse.Namespace) -> EngineConfig:
    return EngineConfig(
        bundle=args.bundle,
        name=args.name,
        slots=args.slots,
        max_context=args.max_context,
        max_queue=args.max_queue,
        threads=args.threads,
        spin=args.spin,
        provider=args.provider,
        speculation=args.speculation,
        prefix_cache=args.prefix_cache,
        prefix_cache_file=args.prefix_cache_file,
        compiled=args.compiled,
        adapters=tuple(args.lora),
        max_adapters=args.max_loras,
        batch_wait=args.batch_wait / 1000,
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines",
        description="Run one bundle behind a Unix socket (basert serve starts these).",
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the bundle's folder")
    add("--socket", type=Path, required=True, help="where to listen for requests")
    add("--control", type=Path, help="the supervisor's socket; the engine ends when that is lost")
    add("--name", default="", help="the model's name [the bundle's]")
    add("--slots", type=int, default=0, help="sequences that run at once [the bundle's]")
    add("--max-context", type=int, default=0, help="longest prompt + answer in tokens [the bundle's]")
    add("--max-queue", type=int, default=EngineConfig.max_queue, help="requests that may wait [%(default)s]")
    add("--threads", type=int, default=0, help="compute threads [the physical cores]")
    add("--cpus", default="", help="CPUs to stay on, as 0-3,8 [all that it may use]")
    add("--numa-node", type=int, help="stay on the CPUs of this NUMA node")
    add("--spin", action=argparse.BooleanOptionalAction, default=True, help="threads wait actively in a step")
    add(
        "--speculation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a lone sequence guesses its next tokens from what it said, and verifies them in one step",
    )
    add("--provider", default=AUTO, help="which of the bundle's graphs to run [auto: the fastest here]")
    add("--prefix-cache", action=argparse.BooleanOptionalAction, default=True, help="reuse common beginnings")
    add("--prefix-cache-file", type=Path, help="keep what is cached here from one start to the next")
    add("--compiled", type=Path, help="where what is compiled for this host is kept [the bundle's compiled/]")
    add(
        "--batch-wait",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="how long an encoder's input may wait for others to share its run [%(default)g]",
    )
    add("--lora", type=Path, action="append", default=[], help="an adapter's folder, to be loaded; repeats")
    add(
        "--max-loras",
        type=int,
        default=EngineConfig.max_adapters,
        help="adapters that may be loaded at once [%(default)s]",
    )
    add("--log-format", choices=["text", "json"], default="text")
    return parser.parse_args(argv)


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


if __name__ == "__main__":
    main()
