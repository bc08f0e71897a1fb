"""The worker's end of an engine connection, against an engine played in this process over a real socket."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from basert import transport
from basert.errors import (
    BasertError,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Unavailable,
)
from basert.frames import packed
from basert.http import engine_client, engine_link
from basert.http.caller import Caller, caller
from basert.http.engine_client import EngineClient
from basert.http.inside import lane
from basert.keys import Key
from basert.messages import (
    AnyMessage,
    Cancel,
    Encode,
    EngineInfo,
    EngineState,
    Failed,
    ModelState,
    Ready,
    Sampling,
    Stats,
    StatsRequest,
    Submit,
    Tokens,
    Vectors,
)
from basert.transport import Connection

INFO = EngineInfo("m", "d", "testing", 4, 256, 300, 8, 1, 0.1)
Play = Callable[["Engine", Connection, AnyMessage], Awaitable[None]]


class Engine:
    """Answers each message with `play`; keeps what it was sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: asyncio.Queue[AnyMessage] = asyncio.Queue()
        self.connections = 0
        self.left = asyncio.Event()  # by some peer
        self.play: Play = _echo
        self.ungreeted: asyncio.Queue[Connection] | None = None  # where connections go instead, while there

    async def start(self) -> None:
        self._server = await transport.serve(self.path, self._serve)

    async def stop(self) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, connection: Connection) -> None:
        self.connections += 1
        if self.ungreeted is not None:
            self.ungreeted.put_nowait(connection)
        else:
            connection.send(Ready(INFO))
        while messages := await connection.receive():
            for message in messages:
                self.heard.put_nowait(message)
                await self.play(self, connection, message)
        self.left.set()


async def _echo(_engine: Engine, connection: Connection, message: AnyMessage) -> None:
    """The prompt's tokens, one frame each, the last with the finish."""
    if isinstance(message, Submit):
        *first, last = message.prompt
        for token in first:
            connection.send(Tokens(message.id, [token]))
        connection.send(Tokens(message.id, [last], "stop"))
    elif isinstance(message, Encode):
        for i in reversed(range(len(message.inputs))):
            connection.send(
                Vectors(message.id, [i], bytes(token % 256 for token in message.inputs[i]), last=i == 0)
            )
    elif isinstance(message, StatsRequest):
        connection.send(Stats(message.id, running=3))


async def _silence(_engine: Engine, _connection: Connection, _message: AnyMessage) -> None:
    pass


async def _die(_engine: Engine, connection: Connection, _message: AnyMessage) -> None:
    connection.close()


async def _die_after_a_token(_engine: Engine, connection: Connection, message: AnyMessage) -> None:
    assert isinstance(message, Submit)
    connection.send(Tokens(message.id, [1]))
    connection.close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(tmp_path / "e.sock")
    await engine.start()
    yield engine
    await engine.stop()


def _state(engine: Engine, state: str = "ready", reason: str = "") -> ModelState:
    one = EngineState(1, state, str(engine.path), reason)
    return ModelState(1, "m", "/bundle", "d", state, [one], ["m"], reason=reason)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[EngineClient]:
    client = EngineClient(_state(engine))
    yield client
    client.close()


async def _ask(client: EngineClient, prompt: list[int]) -> list[int]:
    stream = client.generate(Submit(0, prompt, 9))
    return [token async for tokens in stream for token in tokens.tokens]


async def test_many_requests_share_one_connection_and_each_gets_its_own(
    engine: Engine, client: EngineClient
) -> None:
    prompts = [list(range(n, n + 20)) for n in range(50)]
    assert await asyncio.gather(*(_ask(client, prompt) for prompt in prompts)) == prompts
    assert engine.connections == 1


async def test_options_reach_the_engine(engine: Engine, client: EngineClient) -> None:
    request = Submit(0, [1], 4, Sampling(temperature=0.5, seed=7), [5], True, 2, 3, 0, 1)
    async for _ in client.generate(request):
        pass
    assert msgspec.structs.replace(await engine.heard.get(), id=0) == request  # type: ignore[type-var]


async def test_closing_the_generator_cancels(engine: Engine, client: EngineClient) -> None:
    engine.play = _silence
    task = asyncio.create_task(_ask(client, [1, 2]))
    submit = await engine.heard.get()
    task.cancel()
    assert await engine.heard.get() == Cancel(submit.id)  # type: ignore[union-attr]
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_finished_request_is_not_cancelled(engine: Engine, client: EngineClient) -> None:
    await _ask(client, [1, 2])
    await client.stats()  # whatever was sent before has been heard with this
    assert [type(engine.heard.get_nowait()) for _ in range(engine.heard.qsize())] == [Submit, StatsRequest]


@pytest.mark.parametrize(
    ("code", "kind", "retry_after"),
    [
        ("queue_full", Overloaded, 1.0),
        ("context_length_exceeded", ContextLengthExceeded, None),
        ("no_adapter", ModelNotFound, None),
        ("invalid", InvalidRequest, None),
        ("draining", Unavailable, 2.0),
        ("engine_failed", EngineFailed, None),
    ],
)
async def test_refusals_become_errors(
    engine: Engine, client: EngineClient, code: str, kind: type[BasertError], retry_after: float | None
) -> None:
    async def refuse(_engine: Engine, connection: Connection, message: AnyMessage) -> None:
        if isinstance(message, Submit):
            connection.send(Failed(message.id, code, "because"))

    engine.play = refuse
    with pytest.raises(BasertError) as caught:
        await _ask(client, [1])
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.retry_after) == ("because", retry_after)


async def test_after_the_first_token_a_lost_engine_is_an_error(engine: Engine, client: EngineClient) -> None:
    engine.play = _die_after_a_token
    stream = client.generate(Submit(0, [1], 9))
    assert (await anext(stream)).tokens == [1]
    with pytest.raises(EngineFailed, match="engine of m died during this request"):
        await anext(stream)


async def test_before_the_first_token_it_is_tried_once_more(engine: Engine, client: EngineClient) -> None:
    async def die_once(engine: Engine, connection: Connection, _message: AnyMessage) -> None:
        engine.play = _echo
        connection.close()

    engine.play = die_once
    assert await _ask(client, [1, 2, 3]) == [1, 2, 3]
    assert engine.connections == 2


async def test_but_only_once(engine: Engine, client: EngineClient) -> None:
    """A request that kills engines must not go on to do so."""
    engine.play = _die
    with pytest.raises(EngineFailed):
        await _ask(client, [1])
    assert engine.connections == 2


async def test_a_batchs_requests_are_not_urgent_and_tried_once(engine: Engine, client: EngineClient) -> None:
    """Who runs batches tries again by itself, and knows then under what the engine died."""
    engine.play = _die
    token = lane.set(1)
    with pytest.raises(EngineFailed):
        await _ask(client, [1, 2])
    heard = engine.heard.get_nowait()
    assert isinstance(heard, Submit)
    assert (heard.priority, engine.heard.empty()) == (1, True)
    engine.play = _echo
    assert [answer.last async for answer in client.encode(Encode(0, [[1]]))] == [True]
    lane.reset(token)
    heard = engine.heard.get_nowait()
    assert isinstance(heard, Encode)
    assert heard.priority == 1


async def test_the_second_try_waits_for_the_engine_to_come_back(engine: Engine, client: EngineClient) -> None:
    async def leave(engine: Engine, connection: Connection, _message: AnyMessage) -> None:
        engine.play = _echo
        await engine.stop()
        connection.close()
        gone.set()

    gone = asyncio.Event()
    engine.play = leave
    task = asyncio.create_task(_ask(client, [1, 2]))
    await gone.wait()
    client.update(_state(engine, "restarting"))
    with pytest.raises(Unavailable):  # after this the client has seen it go
        await client.stats()
    with pytest.raises(Unavailable, match="being restarted"):  # what comes now does not wait
        await _ask(client, [3])
    await engine.start()
    client.update(_state(engine))
    assert await task == [1, 2]


async def test_news_that_come_while_it_talks_to_a_dying_engine_are_not_missed(
    engine: Engine, client: EngineClient
) -> None:
    async def die(engine: Engine, connection: Connection, _message: AnyMessage) -> None:
        engine.play, engine.ungreeted = _echo, asyncio.Queue()
        connection.close()
        dead.set()

    dead = asyncio.Event()
    engine.play = die
    task = asyncio.create_task(_ask(client, [1, 2]))
    await dead.wait()
    assert engine.ungreeted is not None
    dying = await engine.ungreeted.get()
    engine.ungreeted = None
    client.update(_state(engine))  # the next engine
    dying.close()
    assert await task == [1, 2]


async def test_leaving_before_the_engines_greeting_hangs_up(engine: Engine, client: EngineClient) -> None:
    engine.ungreeted = asyncio.Queue()
    task = asyncio.create_task(_ask(client, [1]))
    await engine.ungreeted.get()
    with warnings.catch_warnings(record=True) as complaints:  # of a connection that nobody closed
        warnings.simplefilter("always")
        task.cancel()
        await engine.left.wait()
    assert complaints == []


async def test_the_second_try_waits_only_so_long(
    engine: Engine, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(engine: Engine, connection: Connection, _message: AnyMessage) -> None:
        await engine.stop()
        connection.close()

    monkeypatch.setattr(engine_client, "RETRY_PATIENCE", 0.05)
    engine.play = leave
    with pytest.raises(Unavailable) as caught:
        await _ask(client, [1])
    assert caught.value.retry_after == engine_link.RETRY_AFTER


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("loading", "Model m is loading; try again."),
        ("restarting", "Model m is being restarted; try again."),
        ("failed", "Model m cannot be started: no memory"),
    ],
)
async def test_an_engine_that_is_away_is_an_error_at_once(engine: Engine, state: str, sentence: str) -> None:
    client = EngineClient(_state(engine, state, "no memory"))
    for question in (_ask(client, [1]), client.stats()):
        with pytest.raises(Unavailable) as caught:
            await question
        assert str(caught.value) == sentence
        assert caught.value.retry_after
    assert engine.connections == 0


async def test_stats(client: EngineClient) -> None:
    assert (await client.stats()).running == 3


async def test_stats_of_an_engine_that_dies(engine: Engine, client: EngineClient) -> None:
    engine.play = _die
    with pytest.raises(Unavailable):
        await client.stats()


async def test_end_fails_what_is_open_and_what_comes(engine: Engine, client: EngineClient) -> None:
    engine.play = _silence
    task = asyncio.create_task(_ask(client, [1]))
    submit = await engine.heard.get()
    client.end(Unavailable("over"))
    for question in (task, _ask(client, [2])):
        with pytest.raises(Unavailable, match="over"):
            await question
    assert await engine.heard.get() == Cancel(submit.id)  # type: ignore[union-attr]


async def _vectors(client: EngineClient, inputs: list[list[int]]) -> dict[int, bytes]:
    answers = client.encode(Encode(0, inputs))
    return {index: one.data async for one in answers for index in one.indices}


async def test_vectors_come_beside_tokens_over_one_connection(engine: Engine, client: EngineClient) -> None:
    lists = [[[n], [n, n + 1]] for n in range(20)]
    told = await asyncio.gather(*(_vectors(client, inputs) for inputs in lists), _ask(client, [7, 8]))
    assert told == [*({0: bytes(one), 1: bytes(two)} for one, two in lists), [7, 8]]
    assert engine.connections == 1
    await client.stats()
    assert Cancel not in [type(engine.heard.get_nowait()) for _ in range(engine.heard.qsize())]


async def test_leaving_before_the_last_vector_cancels(engine: Engine, client: EngineClient) -> None:
    async def one_of_two(_engine: Engine, connection: Connection, message: AnyMessage) -> None:
        if isinstance(message, Encode):
            connection.send(Vectors(message.id, [1], b"1234"))

    engine.play = one_of_two
    answers = client.encode(Encode(0, [[1], [2]], priority=1))
    assert (await anext(answers)).indices == [1]
    await answers.aclose()
    asked = await engine.heard.get()
    assert asked == Encode(1, [[1], [2]], priority=1)
    assert await engine.heard.get() == Cancel(1)


async def test_vectors_are_asked_for_once_more_even_after_some_have_come(
    engine: Engine, client: EngineClient
) -> None:
    """Encoding again gives the same: unlike tokens that a client has seen, nothing can contradict itself."""

    async def die_halfway(engine: Engine, connection: Connection, message: AnyMessage) -> None:
        assert isinstance(message, Encode)
        engine.play = _echo
        connection.send(Vectors(message.id, [1], bytes(message.inputs[1])))
        connection.close()

    engine.play = die_halfway
    assert await _vectors(client, [[1], [2]]) == {0: b"\x01", 1: b"\x02"}
    assert engine.connections == 2
    engine.play = _die
    with pytest.raises(EngineFailed, match="engine of m died during this request"):
        await _vectors(client, [[1]])
    assert engine.connections <= 4


async def test_a_refused_encode_is_an_error(engine: Engine, client: EngineClient) -> None:
    async def refuse(_engine: Engine, connection: Connection, message: AnyMessage) -> None:
        if isinstance(message, Encode):
            connection.send(Failed(message.id, "queue_full", "because"))

    engine.play = refuse
    with pytest.raises(Overloaded, match="because"):
        await _vectors(client, [[1]])


async def test_parts_that_are_packed_before_arrive_as_they_were(engine: Engine, client: EngineClient) -> None:
    inputs = [[1, 2, 3], [70_000], []]
    async for _ in client.encode(Encode(0, [*map(packed, inputs)])):
        pass
    assert await engine.heard.get() == Encode(1, inputs)


async def test_no_request_is_more_urgent_than_its_key_allows(engine: Engine, client: EngineClient) -> None:
    caller.set(who := Caller())
    for allowed, asked, sent in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)):
        who.key = Key(digest="d", priority=allowed)
        async for _ in client.generate(Submit(0, [1, 2], 4, priority=asked)):
            pass
        heard = await engine.heard.get()
        assert isinstance(heard, Submit)
        assert heard.priority == sent
    assert who.tokens == 8
