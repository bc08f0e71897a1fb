"""Key files: what a line means, what is wrong with one, and what comes out of any text at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from basert import keys
from basert.__main__ import cli
from basert.errors import ConfigError
from basert.keys import Key, Limits


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


FILE = f"""\
# people
sk-plain
{keys.HASHED}{sha256("alice's")}  name=alice  models=smollm2,whisper-*  requests-per-minute=60   # until May
\t
{keys.HASHED}{sha256("ops").upper()} name=ops@example.org admin tokens-per-minute=40000 priority=batch
"""


def test_a_key_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(FILE)
    plain, alice, ops = keys.read((), file)
    assert plain == Key(digest=sha256("sk-plain"))
    assert (alice.name, alice.models, alice.limits) == ("alice", ("smollm2", "whisper-*"), Limits(60, None))
    assert alice.digest == sha256("alice's")
    assert (ops.admin, ops.priority, ops.limits) == (True, 1, Limits(None, 40000))
    assert (ops.digest, ops.name) == (sha256("ops"), "ops@example.org")
    kept = tmp_path / "kept"
    kept.write_bytes(keys.to_json([plain, alice, ops]))
    assert keys.load(kept) == [plain, alice, ops]


def test_what_the_file_says_of_a_key_that_is_given_directly_too_counts(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one  name=alice\n")
    assert [key.name for key in keys.read(("one", "two"), file)] == ["unnamed", "alice"]
    assert [key.digest for key in keys.read((f"sha256:{sha256('one')}",), None)] == [sha256("one")]


def test_whatever_can_do_everything_is_an_administrator_until_one_is_named() -> None:
    plain, limited = Key(digest="a"), Key(digest="b", limits=Limits(60))
    named = Key(digest="c", models=("m",), admin=True)
    assert [key.admin for key in keys.with_admins([plain, limited])] == [True, False]
    assert [key.admin for key in keys.with_admins([plain, limited, named])] == [False, False, True]


def test_models_are_named_by_patterns() -> None:
    key = Key(digest="", models=("smollm2", "org/*"))
    assert [key.allowed(name) for name in ("smollm2", "smollm2-fp32", "org/a/b", "Smollm2")] == [
        True,
        False,
        True,
        False,
    ]
    assert key.allowed("other", "org/alias")
    assert Key(digest="").allowed("anything")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sha256:12 name=a", "sha256: is followed by the SHA-256 of a key, 64 hexadecimal digits"),
        ("k nmae=a", "'nmae' is nothing that can be said of a key; did you mean name?"),
        ("k zzz", "'zzz' is nothing that can be said of a key; there are name, admin, models,"),
        ("k name", "write name=…, without spaces around =."),
        ("k admin=yes", "admin stands alone."),
        ("k name=a name=b", "name is there twice."),
        ("k name=a/b", "'name=a/b': a name has at most 64 letters,"),
        ("k models=a,,b", "'models=a,,b': names or patterns of models are wanted"),
        (
            "k requests-per-minute=0",
            "'requests-per-minute=0': a whole number from 1 to 1000000000 is",
        ),
        ("k tokens-per-minute=1e9", "'tokens-per-minute=1e9': a whole number from 1"),
        ("k tokens-per-minute=²", "'tokens-per-minute=²': a whole number from 1"),
        ("k priority=high", "'priority=high': one of interactive, batch is wanted."),
        ("first name=a", "this key is on line 1 already, with other fields."),
    ],
)
def test_a_wrong_line_is_named_and_why(tmp_path: Path, line: str, sentence: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"first\n# a comment\n{line}\n")
    with pytest.raises(ConfigError) as raised:
        keys.read((), file)
    assert str(raised.value).startswith(f"--api-key-file {file}, line 3: {sentence}")


@given(st.text())
def test_any_text_is_keys_or_one_clear_sentence(text: str) -> None:
    """And what is kept of a key is its hash."""
    found, complaint = _read(text)
    assert complaint == "" or complaint.startswith("here, line ")
    words = {line.split()[0] for line in text.splitlines() if line.split()}
    hashes = {word.removeprefix(keys.HASHED).lower() for word in words}
    assert {key.digest for key in found} <= {keys.digest(word) for word in words} | hashes


def _read(text: str) -> tuple[list[Key], str]:
    try:
        return keys.parse_file(text, "here"), ""
    except ConfigError as error:
        return [], error.message


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True)
patterns = st.lists(st.from_regex(r"[a-z0-9*?/._-]{1,20}", fullmatch=True), max_size=3).map(tuple)
amounts = st.none() | st.integers(1, keys.MOST_PER_MINUTE)


@given(
    st.builds(
        Key,
        digest=st.text("0123456789abcdef", min_size=64, max_size=64),
        name=names,
        admin=st.booleans(),
        models=patterns,
        limits=st.builds(Limits, amounts, amounts),
        priority=st.sampled_from([0, 1]),
    )
)
def test_a_key_is_written_as_it_is_read(key: Key) -> None:
    assert keys.parse(key.line(), "here") == key


def test_the_command_line_makes_keys(tmp_path: Path) -> None:
    made = CliRunner().invoke(cli, ["key", "new", "--name", "alice", "--models", "smollm2,org/*"])
    (_, secret), (_, line) = (row.split(maxsplit=1) for row in made.output.splitlines())
    assert keys.parse(line, "") == Key(digest=sha256(secret), name="alice", models=("smollm2", "org/*"))
    assert secret not in line
    assert len(secret) > 60


def test_the_command_line_adds_keys_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    run = CliRunner().invoke
    first = run(cli, ["key", "new", "--file", str(file), "--admin"]).output.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text() + "plain")  # and no end of line
    limits = ["--tokens-per-minute", "100", "--requests-per-minute", "5", "--priority", "batch"]
    second = run(cli, ["key", "new", "--file", str(file), *limits]).output.strip()
    admin, plain, limited = keys.read((), file)
    assert [admin.digest, plain.digest, limited.digest] == [sha256(first), sha256("plain"), sha256(second)]
    assert (admin.admin, plain.admin, limited.limits, limited.priority) == (True, False, Limits(5, 100), 1)


@pytest.mark.parametrize("flags", [["--name", "a b"], ["--priority", "high"], ["--tokens-per-minute", "0"]])
def test_the_command_line_makes_no_wrong_key(tmp_path: Path, flags: list[str]) -> None:
    file = tmp_path / "keys"
    result = CliRunner().invoke(cli, ["key", "new", "--file", str(file), *flags])
    assert isinstance(result.exception, ConfigError)
    assert not file.exists()


def test_a_broken_file_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("k bad\n")
    result = CliRunner().invoke(cli, ["key", "new", "--file", str(file)])
    assert "line 1: 'bad' is nothing" in str(result.exception)
    assert file.read_text() == "k bad\n"
