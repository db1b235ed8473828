"""Options of a node: defaults, the TOML file, the command line, and that everything wrong is named."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.config import NodeConfig, default_file, default_state, load, options, reference
from cloudmytask.errors import ConfigurationError

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def written(directory: Path, text: str) -> Path:
    file = directory / "node.toml"
    file.write_text(text, encoding="utf-8")
    return file


def uncommented(text: str) -> str:
    return "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))


def test_defaults(tmp_path: Path) -> None:
    config = load(default=tmp_path / "absent.toml")
    assert config == NodeConfig()
    assert config.state == default_state()
    assert config.listen == ()
    assert config.slots >= 1
    assert config.retention == 7 * 86_400
    assert config.script_max == 64 * 1024**2
    assert config.log is None


def test_command_line_wins_over_file_wins_over_default(tmp_path: Path) -> None:
    file = written(tmp_path, 'slots = 3\nname = "from-file"\ndrain_timeout = "1m"\n')
    config = load(file, {"name": "from-line"})
    assert (config.slots, config.name, config.drain_timeout, config.kill_grace) == (3, "from-line", 60, 10)


def test_default_file_is_read_if_it_exists(tmp_path: Path) -> None:
    assert load(default=written(tmp_path, "slots = 3")).slots == 3


def test_every_value_has_the_same_forms_in_file_and_command_line(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        listen = ["127.0.0.1:7001", "[::1]:0"]
        slots = 2
        load_source = "none"
        idle_threshold = 1
        output_max = "500M"
        retention = 90
        exit_grace = 0.25
        log = "-"
        """,
    )
    assert load(file) == load(
        default=tmp_path / "absent",
        arguments={
            "listen": "127.0.0.1:7001, [::1]:0",
            "slots": "2",
            "load_source": "none",
            "idle_threshold": "1",
            "output_max": "500M",
            "retention": "90s",
            "exit_grace": "0.25",
            "log": "-",
        },
    )


def test_relative_paths_start_at_the_file_and_at_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load(written(tmp_path, 'state = "s"\nlog = "~/node.log"'))
    assert (config.state, config.log) == (tmp_path / "s", Path("/home/somebody/node.log"))
    assert load(default=tmp_path / "absent", arguments={"state": "s"}).state == here / "s"


def test_default_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_state({}, root=True) == Path("/var/lib/cloudmytask")
    assert default_state({}, root=False) == Path("/home/somebody/.local/state/cloudmytask")
    assert default_state({"XDG_STATE_HOME": "/x"}, root=False) == Path("/x/cloudmytask")
    assert default_state({"XDG_STATE_HOME": "x"}, root=False) == Path("/home/somebody/.local/state/cloudmytask")
    assert default_file({"XDG_CONFIG_HOME": "/x"}, root=True) == Path("/etc/cloudmytask/node.toml")
    assert default_file({}, root=False) == Path("/home/somebody/.config/cloudmytask/node.toml")
    assert default_file({"XDG_CONFIG_HOME": "/x"}, root=False) == Path("/x/cloudmytask/node.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slot = 2", ["unknown option 'slot'", "did you mean 'slots'?"]),
        ("drain-timeout = 2", ["unknown option 'drain-timeout'", "did you mean 'drain_timeout'?"]),
        ("zzz = 2", ["unknown option 'zzz'", "known are state, name,"]),
        ("[cluster]\nx = 2", ["unknown option 'cluster'"]),
        ("slots = 0", ["slots: 0 is out of range: give 1 to 4096."]),
        ("slots = 4097", ["slots: 4097 is out of range: give 1 to 4096."]),
        ("slots = true", ["slots: True is not a whole number."]),
        ('slots = "4"', ["slots: '4' is not a whole number."]),
        ("slots = 1.5", ["slots: 1.5 is not a whole number."]),
        ("idle_threshold = 1.5", ["idle_threshold: 1.5 is out of range: give 0 to 1."]),
        ("idle_threshold = nan", ["idle_threshold: nan is out of range"]),
        ("idle_threshold = []", ["idle_threshold: [] is not a number."]),
        ('name = "a b"', ["name: 'a b' is not a name: give 1 to 64 letters"]),
        (f'name = "{"x" * 65}"', ["is not a name: give 1 to 64 letters"]),
        ('load_source = "cpu"', ['load_source: \'cpu\' is unknown: give "machine" or "none".']),
        ("retention = -1", ["retention: -1 is not a duration"]),
        ("retention = inf", ["retention: inf is not a duration"]),
        ("retention = 2026-01-01", ["retention: datetime.date(2026, 1, 1) is not a duration"]),
        ('retention = "11y"', ["retention: '11y' is not a duration: give a number of seconds, or"]),
        ("retention = 1e10", ['"3650d"']),
        ('script_max = "0"', ["script_max:", 'is out of range: give at least "1".']),
        ("script_max = {}", ["script_max: {} is not a size"]),
        ('output_max = "1X"', ["output_max: '1X' is not a size: give a number of bytes"]),
        ("state = 7", ["state: 7 is not a path."]),
        ('state = ""', ["state: '' is not a path."]),
        ('state = "a\\u0000b"', ["is not a path."]),
        ('state = "~nobody-of-that-name/x"', ["home directory of an unknown user"]),
        ('listen = "127.0.0.1:1"', ["listen: '127.0.0.1:1' is not a list of HOST:PORT addresses."]),
        ("listen = [7001]", ["listen: 7001 is not a HOST:PORT address."]),
        ('listen = ["localhost"]', ["'localhost' is not of the form HOST:PORT"]),
        ('listen = [":7001"]', ["':7001' is not of the form HOST:PORT"]),
        ('listen = ["localhost:x"]', ["'x' in 'localhost:x' is not a port: give a number from 0 to 65535."]),
        ('listen = ["localhost:65536"]', ["'65536' in 'localhost:65536' is not a port"]),
        ("slots = ", ["is not TOML"]),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}: ")
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    "address", ["0.0.0.0:7001", "192.168.1.7:7001", "example.org:7001", "[::]:1", "[::ffff:127.0.0.1]:1", "::1%lo:1"]
)
def test_only_loopback_may_be_listened_on_and_the_reason_is_given(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigurationError, match="until instances have certificates, they listen only on") as caught:
        load(default=tmp_path / "absent", arguments={"listen": address})
    assert str(caught.value).startswith(f"--listen: {address!r} is not a loopback address")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:65535", "localhost:0", "LOCALHOST:1", "[::1]:7", "::1:7"]
)
def test_loopback_addresses(address: str) -> None:
    assert NodeConfig(listen=(address,)).listen == (address,)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"slots": "x"}, "--slots: 'x' is not a whole number."),
        ({"slots": "0"}, "--slots: 0 is out of range: give 1 to 4096."),
        ({"idle_threshold": "much"}, "--idle-threshold: 'much' is not a number."),
        ({"name": ""}, "--name: '' is not a name: give 1 to 64 letters, digits, dots, underscores and dashes."),
        ({"state": ""}, "--state: '' is not a path."),
    ],
)
def test_what_is_wrong_on_the_command_line_is_named(tmp_path: Path, arguments: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(default=tmp_path / "absent", arguments=arguments)
    assert str(caught.value) == sentence


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize("named", [True, False])
def test_an_unreadable_file_is_an_error_even_if_it_is_the_default(tmp_path: Path, named: bool) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load(tmp_path) if named else load(default=tmp_path)


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        load(file)


def test_retention_is_bounded_by_its_maximum() -> None:
    with pytest.raises(ConfigurationError, match=r'retention \("2d"\) is longer than retention_max \("1d"\)'):
        NodeConfig(retention=2 * 86_400, retention_max=86_400)
    assert NodeConfig(retention=86_400, retention_max=86_400).retention == 86_400


def test_the_socket_path_has_the_kernels_limit() -> None:
    room = 107 - len("/" + "/node.sock")
    assert len(str(NodeConfig(state=Path("/" + "x" * room)).socket)) == 107
    with pytest.raises(ConfigurationError, match="has 108 bytes, and a unix socket may have 107 at most"):
        NodeConfig(state=Path("/" + "x" * (room + 1)))
    with pytest.raises(ConfigurationError, match="107 at most"):
        NodeConfig(state=Path("/" + "é" * (room // 2 + 1)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_config_made_in_code_is_checked_too(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^drain_timeout: "):
        NodeConfig(drain_timeout=value)


def test_every_option_says_what_it_is() -> None:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(NodeConfig)
    for attribute, option in zip(fields, options(), strict=True):
        assert attribute.name == option.key
        assert attribute.metadata["help"].endswith(".")
        assert attribute.metadata["unit"]
        assert option.default


def test_the_reference_is_toml_with_valid_examples(tmp_path: Path) -> None:
    text = uncommented(reference())
    assert set(tomllib.loads(text)) == {option.key for option in options()}
    load(written(tmp_path, text))


def test_the_defaults_shown_are_the_defaults(tmp_path: Path) -> None:
    shown = {option.key: option for option in options() if option.default == option.example}
    config = load(written(tmp_path, "\n".join(f"{key} = {option.default}" for key, option in shown.items())))
    for key in shown:
        assert getattr(config, key) == getattr(NodeConfig(), key)


def test_the_documentation_is_up_to_date() -> None:
    assert f"```toml\n{reference()}```" in DOCUMENT.read_text(encoding="utf-8")


@given(
    st.sampled_from([option.key for option in options()]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
)
def test_any_value_is_accepted_or_a_configuration_error(key: str, value: object) -> None:
    option = {each.key: each for each in options()}[key]
    try:
        NodeConfig(**{key: option.parse(value, Path("/"))})
    except (ValueError, ConfigurationError) as error:
        assert str(error)
