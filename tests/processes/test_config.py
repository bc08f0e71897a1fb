"""Settings: who wins, what is refused, and what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from basert import config, settings
from basert.cli.serve import command
from basert.config import ServeConfig
from basert.errors import ConfigError
from basert.keys import digest
from tests.tiny import write_testing_bundle


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "basert.toml"


@given(*(st.one_of(st.none(), st.integers(1, 65535)) for _ in range(3)))
def test_flag_wins_over_environment_over_file_over_default(
    tmp_path_factory: pytest.TempPathFactory, flag: int | None, variable: int | None, entry: int | None
) -> None:
    file = tmp_path_factory.mktemp("c") / "basert.toml"
    file.write_text("" if entry is None else f"port = {entry}")
    flags = {} if flag is None else {"port": str(flag)}
    environ = {} if variable is None else {"BASERT_PORT": str(variable)}
    loaded = config.load(flags, environ, file)
    given = [
        (value, source)
        for value, source in (
            (flag, "flag --port"),
            (variable, "BASERT_PORT"),
            (entry, str(file)),
            (8080, "default"),
        )
        if value is not None
    ]
    assert (loaded.config.port, loaded.sources["port"]) == given[0]


def test_every_setting_can_be_given_in_every_way(file: Path) -> None:
    """Its own default, or a value of its type, written as flag, variable and file entry, parses to itself."""
    texts = {bool: "false", str: "text", Path: "/new"}
    for name, one in settings.declared(ServeConfig).items():
        if name in ("api_key_file", "prefix_cache_file", "require_signature", "cpus", "numa_node", "alias"):
            continue  # files, what this machine has, what has a form of its own
        if name == "database_url":
            continue  # what goes with another setting
        as_text = (
            one.help.choices[-1]
            if one.help.choices
            else texts.get(one.kind) or str(int(one.help.least or 0) + 7)
        )
        as_toml = f'"{as_text}"' if one.kind in (str, Path) else as_text
        file.write_text(f"{one.key} = {as_toml}" if not one.repeats else f"{one.key} = [{as_toml}]")
        found = {
            getattr(loaded.config, name)
            for loaded in (
                config.load({name: (as_text,) if one.repeats else as_text}, {}),
                config.load({}, {one.variable: as_text}),
                config.load({}, {}, file),
            )
        }
        expected = False if one.kind is bool else one.kind(as_text)
        assert found == {(expected,) if one.repeats else expected}, name


def test_lists_split_at_commas_in_variables(file: Path) -> None:
    assert config.load({}, {"BASERT_MODEL": "a, b"}).config.model == ("a", "b")
    file.write_text('model = ["a", "b"]')
    assert config.load({}, {"BASERT_CONFIG": str(file)}).config.model == ("a", "b")


@pytest.mark.parametrize(
    ("flags", "environ", "entry", "sentence"),
    [
        ({"port": "99999"}, {}, "", "--port: 99999 is more than 65535."),
        ({"port": "http"}, {}, "", "--port: a whole number is wanted, not http."),
        ({}, {"BASERT_DRAIN_TIMEOUT": "nan"}, "", "BASERT_DRAIN_TIMEOUT: a number is wanted, not nan."),
        ({}, {"BASERT_SPIN": "maybe"}, "", "BASERT_SPIN: true or false is wanted, not maybe."),
        ({}, {"BASERT_LOG_FORMAT": "xml"}, "", "BASERT_LOG_FORMAT: 'xml' is none of text, json."),
        ({}, {}, "workers = 1.5", "{file}, workers: a whole number is wanted, not 1.5."),
        ({}, {}, "workers = true", "{file}, workers: a whole number is wanted, not true."),
        ({}, {}, "model = 3", "{file}, model: a list of texts is wanted, not 3."),
        ({}, {}, "prot = 1", "{file}: there is no setting prot; did you mean port?"),
        (
            {},
            {},
            "port = ",
            "The configuration file {file} is no valid TOML: Invalid value (at end of document).",
        ),
        (
            {"api_key_file": "/nowhere"},
            {},
            "",
            "--api-key-file /nowhere cannot be read: No such file or directory.",
        ),
        (
            {"log_file": "/nowhere/log"},
            {},
            "",
            "--log-file (flag --log-file): there is no folder /nowhere; make it first.",
        ),
        ({"drain_timeout": "inf"}, {}, "", "--drain-timeout: a number is wanted, not inf."),
        (
            {"model": ("a", "b"), "served_model_name": ("c",)},
            {},
            "",
            "--served-model-name (flag --served-model-name) renames a single model, but 2 are served;"
            " leave it out or serve one.",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_source(
    file: Path, flags: dict[str, str], environ: dict[str, str], entry: str, sentence: str
) -> None:
    file.write_text(entry)
    with pytest.raises(ConfigError) as caught:
        config.load(flags, environ, file)
    assert str(caught.value) == sentence.format(file=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"configuration file .*none.toml cannot be read: No such file"):
        config.load({}, {}, tmp_path / "none.toml")


def test_keys_come_from_flags_and_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# who has it\n\n one \ntwo\n")
    loaded = config.load({"api_key": ("zero",), "api_key_file": str(keys)}, {})
    digests = [key.digest for key in loaded.config.read_keys()]
    assert digests == [digest(key) for key in ("zero", "one", "two")]
    keys.write_text("three\n")
    assert [key.digest for key in loaded.config.read_keys()] == [digest("zero"), digest("three")]
    keys.write_text("# none\n")
    with pytest.raises(ConfigError, match="holds no key"):
        loaded.config.read_keys()


def test_workers_read_what_the_supervisor_wrote() -> None:
    written = config.load({"api_key": ("k",), "log_file": "/tmp/log", "spin": False}, {}).config
    assert config.from_json(config.to_json(written)) == written


def test_print_config_shows_sources_and_hides_keys(file: Path) -> None:
    file.write_text("port = 81\nworkers = 3")
    result = CliRunner().invoke(
        command,
        ["tiny", "--config", str(file), "--api-key", "secret", "--no-spin", "--print-config"],
        env={"BASERT_WORKERS": "2"},
        catch_exceptions=False,
    )
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in result.output.splitlines()}
    assert rows["port"] == f"81 {file}"
    assert rows["workers"] == "2 BASERT_WORKERS"
    assert rows["model"] == "tiny flag --model"
    assert rows["spin"] == "false flag --spin"
    assert rows["drain-timeout"] == "30 default"
    assert rows["served-model-name"] == "- default"
    assert rows["api-key"] == "(hidden) flag --api-key"
    assert rows["max-queue"] == "- default"
    assert "secret" not in result.output


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    for flags in ({"log_file": "~nobody-here/log"}, {"run_dir": "~nobody-here"}):
        with pytest.raises(ConfigError, match=r"~nobody-here.*: no such home folder is known"):
            config.load(flags, {})


def test_help_names_every_setting() -> None:
    output = CliRunner().invoke(command, ["--help"]).output
    assert [one.flag for one in settings.declared(ServeConfig).values() if one.flag not in output] == []


@pytest.mark.parametrize(
    ("aliases", "sentence"),
    [
        (("chat",), "--alias (flag --alias): NAME=MODEL is wanted, not 'chat'."),
        (("=tiny",), "--alias (flag --alias): NAME=MODEL is wanted, not '=tiny'."),
        (("a=b", "a=c"), "--alias (flag --alias): a stands for two models; choose one."),
    ],
)
def test_aliases_that_are_none(aliases: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({"alias": aliases}, {})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("alias", "sentence"),
    [
        ("chat=huge", "--alias chat=huge: huge is not served; name one of tiny."),
        ("tiny=tiny", "--alias tiny=tiny: a model is called tiny already; choose another name."),
    ],
)
def test_aliases_of_nothing(tmp_path: Path, alias: str, sentence: str) -> None:
    bundle = str(write_testing_bundle(tmp_path))
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(command, [bundle, "--alias", alias], catch_exceptions=False)
    assert str(caught.value) == sentence
