"""Options of a node: defaults, the TOML file, the command line, and that everything wrong is named."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.config import (
    CsuConfig,
    InstanceConfig,
    NodeConfig,
    Option,
    default_file,
    load,
    reference,
)
from cloudmytask.core.units import format_bit_rate, parse_bit_rate
from cloudmytask.directories import default_state
from cloudmytask.model.errors import ConfigurationError
from cloudmytask.service.world import load_key

BOTH = pytest.mark.parametrize("of", [NodeConfig, CsuConfig])
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def written(directory: Path, text: str) -> Path:
    file = directory / "node.toml"
    file.write_text(text, encoding="utf-8")
    return file


def made(of: type[InstanceConfig], **values: Any) -> InstanceConfig:
    make: Callable[..., InstanceConfig] = of
    return make(**values)


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
        insecure_lan = true
        cluster = "lab"
        group = ""
        interface = "192.168.1.7"
        seeds = ["lab-7:7001", "[fd00::7]:7001"]
        threshold = 0.5
        placement = "paper"
        max_hops = 3
        announce_budget = "0.15M"
        byte_rate = "1M"
        orphan_grace = "2m"
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
            "insecure_lan": "true",
            "cluster": "lab",
            "group": "",
            "interface": "192.168.1.7",
            "seeds": "lab-7:7001,[fd00::7]:7001",
            "threshold": "0.5",
            "placement": "paper",
            "max_hops": "3",
            "announce_budget": "150000",
            "byte_rate": "1048576",
            "orphan_grace": "120",
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
        ("[network]\nx = 2", ["unknown option 'network'"]),
        ("[cluster]\nx = 2", ["cluster: {'x': 2} is not a name"]),
        ("insecure_lan = 1", ["insecure_lan: 1 is neither true nor false."]),
        ('insecure_lan = "true"', ["insecure_lan: 'true' is neither true nor false."]),
        ('group = "10.0.0.1:7700"', ["'10.0.0.1' in '10.0.0.1:7700' is not an IPv4 multicast address"]),
        ('group = "[ff02::1]:7700"', ["'ff02::1' in '[ff02::1]:7700' is not an IPv4 multicast address"]),
        ('group = "239.1.1.1"', ["'239.1.1.1' is not of the form HOST:PORT"]),
        ('group = "239.1.1.1:0"', ["'0' in '239.1.1.1:0' is not a port to connect to: give a number from 1 to 65535"]),
        ('group = "239.1.1.1:1"', ["group: other instances must be able to connect to this one: give listen too."]),
        ('listen = ["[::1]:1"]\ngroup = "239.1.1.1:1"', ["group: '[::1]:1' is not an IPv4 address: say in interface"]),
        ('interface = "lo"', ["interface: 'lo' is not the IPv4 address of an interface."]),
        ('interface = "239.1.1.1"', ["interface: '239.1.1.1' is not the IPv4 address of an interface."]),
        ('interface = "10.1.1.1"', ["interface: '10.1.1.1' is beyond loopback, which takes insecure_lan = true"]),
        ('seeds = ["lab-7:0"]', ["'0' in 'lab-7:0' is not a port to connect to"]),
        ('seeds = ["a b:1"]', ["'a b' in 'a b:1' is neither a host's name nor an IP address."]),
        ('seeds = ["lab-7:1"]', ["seeds: other instances must be able to connect to this one: give listen too."]),
        ('announce_budget = "4X"', ["announce_budget: '4X' is not a bit rate: give a number of bits per second"]),
        ('announce_budget = "9K"', ['announce_budget: "9K" is out of range: give "10K" to "10G".']),
        ("announce_budget = true", ["announce_budget: True is not a bit rate"]),
        ("heartbeat = 21", ['heartbeat: "21s" is out of range: give "0.1s" to "20s".']),
        ("max_hops = 0", ["max_hops: 0 is out of range: give 1 to 64."]),
        ("threshold = -0.1", ["threshold: -0.1 is out of range: give 0 to 1."]),
        ('placement = "best"', ['placement: \'best\' is unknown: give "reserve-pull", "paper" or "local".']),
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
        ({"insecure_lan": "yes"}, "--insecure-lan: 'yes' is neither true nor false."),
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


@BOTH
def test_every_option_says_what_it_is(of: type[InstanceConfig]) -> None:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(of)
    assert (fields[0].name, fields[-1].name) == ("state", "log")
    for attribute, option in zip(fields, of.options(), strict=True):
        assert attribute.name == option.key
        assert attribute.metadata["help"].endswith(".")
        assert attribute.metadata["unit"]
        assert option.default


@BOTH
def test_the_reference_is_toml_with_valid_examples(tmp_path: Path, of: type[InstanceConfig]) -> None:
    text = uncommented(reference(of))
    assert set(tomllib.loads(text)) == {option.key for option in of.options()}
    load(written(tmp_path, text), of=of)


@BOTH
def test_the_defaults_shown_are_the_defaults(tmp_path: Path, of: type[InstanceConfig]) -> None:
    shown = {option.key: option for option in of.options() if option.default == option.example}
    config = load(written(tmp_path, "\n".join(f"{key} = {option.default}" for key, option in shown.items())), of=of)
    for key in shown:
        assert getattr(config, key) == getattr(made(of), key)


@BOTH
def test_the_documentation_is_up_to_date(of: type[InstanceConfig]) -> None:
    assert f"```toml\n{reference(of)}```" in DOCUMENT.read_text(encoding="utf-8")


@given(
    st.sampled_from([(of, option) for of in (NodeConfig, CsuConfig) for option in of.options()]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
)
def test_any_value_is_accepted_or_a_configuration_error(
    option: tuple[type[InstanceConfig], Option], value: object
) -> None:
    of, known = option
    try:
        made(of, **{known.key: known.parse(value, Path("/"))})
    except (ValueError, ConfigurationError) as error:
        assert str(error)


LAN: dict[str, Any] = {"insecure_lan": True, "listen": ("192.168.1.7:7001",)}
EVERYWHERE: dict[str, Any] = {"insecure_lan": True, "listen": ("0.0.0.0:0",), "interface": "192.168.1.7"}
HERE: dict[str, Any] = {"listen": ("127.0.0.2:7001",)}


@BOTH
@pytest.mark.parametrize(
    ("given", "address", "beyond", "group", "interface"),
    [
        ({}, "", False, None, None),
        (HERE, "127.0.0.2:7001", False, None, "127.0.0.2"),
        ({"listen": ("localhost:0",)}, "127.0.0.1:0", False, None, "127.0.0.1"),
        ({"listen": ("::1:7001",)}, "[::1]:7001", False, None, None),
        (HERE | {"group": "239.1.2.3:4"}, "127.0.0.2:7001", False, ("239.1.2.3", 4), "127.0.0.2"),
        (LAN, "192.168.1.7:7001", True, ("239.255.77.77", 7700), "192.168.1.7"),
        (LAN | {"group": ""}, "192.168.1.7:7001", True, None, "192.168.1.7"),
        (EVERYWHERE, "192.168.1.7:0", True, ("239.255.77.77", 7700), "192.168.1.7"),
        ({"insecure_lan": True, "listen": ("[fd00::1]:1",)}, "[fd00::1]:1", True, None, None),
        ({"insecure_lan": True, "listen": ("127.0.0.1:1", "10.1.1.1:1")}, "127.0.0.1:1", True, None, "127.0.0.1"),
    ],
)
def test_where_it_is_reached(
    of: type[InstanceConfig],
    given: dict[str, Any],
    address: str,
    beyond: bool,
    group: tuple[str, int] | None,
    interface: str | None,
) -> None:
    config = made(of, **given)
    found = (config.address, config.beyond_loopback, config.multicast_group, config.multicast_interface)
    assert found == (address, beyond, group, interface)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"listen": ("example.org:1",)}, "listen: 'example.org' in 'example.org:1' is not an IP address"),
        ({"listen": ("0.0.0.0:1",)}, "listen: '0.0.0.0:1' names every address of this host"),
        ({"listen": ("[::]:1",)}, "say in interface which"),
    ],
)
def test_what_is_announced_must_be_an_address(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        NodeConfig(insecure_lan=True, **given)


def test_what_concerns_several_values_names_where_it_was_written(tmp_path: Path) -> None:
    file = written(tmp_path, 'listen = ["10.1.1.1:1"]')
    with pytest.raises(ConfigurationError, match=f"^{file}: listen: '10.1.1.1:1' is not a loopback.*--insecure-lan"):
        load(file)
    assert load(file, {"insecure_lan": "true"}).beyond_loopback


def test_a_csu_has_its_own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_state({}, root=True, directory="cloudmytask-csu") == Path("/var/lib/cloudmytask-csu")
    assert default_file({}, root=True, of=CsuConfig) == Path("/etc/cloudmytask/csu.toml")
    config = load(written(tmp_path, 'state = "s"\nhistory = "1d"'), of=CsuConfig)
    assert (config.socket, config.history, config.history_interval) == (tmp_path / "s" / "csu.sock", 86_400, 10)
    with pytest.raises(ConfigurationError, match="unknown option 'slots'"):
        load(written(tmp_path, "slots = 3"), of=CsuConfig)


@given(st.integers(0, 10**12))
def test_a_bit_rate_is_read_back_as_it_was_written(rate: int) -> None:
    assert parse_bit_rate(format_bit_rate(rate)) == parse_bit_rate(rate) == rate


def key_file(directory: Path, secret: bytes, mode: int = 0o600) -> Path:
    file = directory / "key"
    file.write_bytes(secret)
    file.chmod(mode)
    return file


def test_a_key_is_the_files_bytes_without_line_ends(tmp_path: Path) -> None:
    assert load_key(key_file(tmp_path, b"0123456789abcdef\r\n")) == b"0123456789abcdef"
    assert load_key(key_file(tmp_path, b"0123456789abcdef \0", 0o400)) == b"0123456789abcdef \0"


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o777])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match=f"has mode 0{mode:o}: others than its owner may use it"):
        load_key(key_file(tmp_path, b"x" * 16, mode))


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [(b"x" * 15 + b"\n", "holds 15 bytes: a key has at least 16."), (b"x" * 4097, "is larger than 4096 bytes")],
)
def test_a_key_has_its_limits(tmp_path: Path, secret: bytes, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        load_key(key_file(tmp_path, secret))


def test_a_key_is_a_regular_file_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory"):
        load_key(tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_key(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        load_key(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"x" * 16)
    os.chown(file, 12_345, -1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        load_key(file)
