"""The option table: the sources of values, their forms, and refused values."""

from __future__ import annotations

from pathlib import Path

import pytest

from picowsgi.config.load import load_settings
from picowsgi.config.settings import OPTIONS, Settings
from picowsgi.config.values import Trusted
from picowsgi.errors import ConfigError
from picowsgi.system.sockets import Bind


def load(
    given: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
    directory: Path = Path("/nonexistent"),
    config_file: Path | None = None,
) -> Settings:
    """Load settings from exactly these places, and not from the machine of the test."""
    return load_settings(given or {}, environ or {}, directory, config_file)


def refusal(
    given: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
    directory: Path = Path("/nonexistent"),
    config_file: Path | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(given, environ, directory, config_file)
    return str(caught.value)


def write_project(directory: Path, table: str) -> Path:
    path = directory / "pyproject.toml"
    path.write_text(f"[project]\nname = 'x'\n\n[tool.picowsgi]\n{table}\n")
    return path


def test_every_option_has_its_default_when_no_value_is_given() -> None:
    assert load() == Settings()
    assert load().sources == {}


def test_every_default_is_a_value_that_its_own_option_accepts() -> None:
    for option in OPTIONS.values():
        assert option.convert(option.default) == option.default
        assert option.convert(option.show(option.default)) == option.default


def test_every_field_but_two_is_an_option_with_help_and_group() -> None:
    assert set(OPTIONS) == set(Settings.__dataclass_fields__) - {"sources", "ignored"}
    for option in OPTIONS.values():
        assert option.help
        assert option.group


def test_an_argument_overrides_the_environment_and_the_environment_overrides_the_file(
    tmp_path: Path,
) -> None:
    write_project(tmp_path, "backlog = 1\nmax_fields = 2\nmax_connections = 3")
    environ = {"PICOWSGI_BACKLOG": "11", "PICOWSGI_MAX_FIELDS": "12"}
    settings = load({"backlog": 21}, environ, tmp_path)
    assert (settings.backlog, settings.max_fields, settings.max_connections) == (21, 12, 3)
    assert settings.sources == {
        "backlog": "option backlog",
        "max_fields": "PICOWSGI_MAX_FIELDS in the environment",
        "max_connections": f"max_connections in {tmp_path / 'pyproject.toml'}",
    }


def test_none_and_an_empty_variable_mean_that_no_value_was_given() -> None:
    assert load({"port": None}, {"PICOWSGI_PORT": "", "PORT": ""}) == Settings()


def test_an_overridden_value_need_not_be_valid() -> None:
    assert load({"port": 1}, {"PICOWSGI_PORT": "x"}).port == 1


def test_a_project_without_our_table_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load(directory=tmp_path) == Settings()


def test_a_config_file_replaces_the_project_file(tmp_path: Path) -> None:
    write_project(tmp_path, "port = 1\nbacklog = 7")
    own = tmp_path / "serve.toml"
    own.write_text("port = 2\n")
    settings = load(directory=tmp_path, config_file=own)
    assert (settings.port, settings.backlog) == (2, 1024)


def test_a_config_file_may_hold_a_project_table(tmp_path: Path) -> None:
    own = tmp_path / "serve.toml"
    own.write_text("[tool.picowsgi]\nport = 3\n[tool.other]\nx = 1\n")
    assert load(config_file=own).port == 3


def test_a_missing_config_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absent.toml"
    assert refusal(config_file=path) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize("content", [b"port = \n", b"\xff"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(content)
    assert refusal(directory=tmp_path).startswith(f"{path} is not valid TOML: ")


@pytest.mark.parametrize("content", ["tool.picowsgi = 1", "tool = 1"])
def test_an_invalid_table_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(content)
    assert refusal(directory=tmp_path) == f"tool.picowsgi in {path}: expected a table, got 1"


# Unknown names


def test_an_unknown_keyword_is_refused_with_a_suggestion() -> None:
    assert refusal({"prot": 1}) == "unknown option 'prot'; did you mean port?"


def test_a_name_that_resembles_no_option_is_refused_without_a_suggestion() -> None:
    assert refusal({"zzz": 1}) == "unknown option 'zzz'"


def test_the_error_for_a_name_of_another_server_suggests_ours() -> None:
    message = refusal({"connection_limit": 5})
    assert message == (
        "unknown option 'connection_limit'; waitress's connection_limit is max_connections here"
    )
    message = refusal(environ={"PICOWSGI_UDS": "x"})
    assert message == (
        "unknown option PICOWSGI_UDS in the environment; "
        "uvicorn's and granian's uds is PICOWSGI_BIND here (as unix:PATH)"
    )


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    message = refusal(environ={"PICOWSGI_PROT": "1"})
    assert message == (
        "unknown option PICOWSGI_PROT in the environment; did you mean PICOWSGI_PORT?"
    )


@pytest.mark.parametrize(
    "variable", ["PICOWSGI_DEV", "PICOWSGI_EMULATE", "PICOWSGI_SANITIZE", "PICO", "OTHER_PORT"]
)
def test_unrelated_variables_are_ignored(variable: str) -> None:
    assert load(environ={variable: "1"}) == Settings()


def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    path = write_project(tmp_path, "log-level = 'debug'")
    message = refusal(directory=tmp_path)
    assert message == f"unknown option 'log-level' in {path}; did you mean log_level?"


def test_the_record_of_sources_is_not_an_option() -> None:
    assert refusal({"sources": {}}).startswith("unknown option 'sources'")


# The source of a refused value


def test_a_refused_keyword_is_named_with_its_value_and_what_was_expected() -> None:
    message = "option port: expected a whole number from 0 to 65535, got 65536"
    assert refusal({"port": 65536}) == message


def test_a_refused_command_line_value_is_named_by_its_flag() -> None:
    with pytest.raises(ConfigError, match=r"^--max-head-size: expected a size from 256 to 4 MiB"):
        load_settings({"max_head_size": "9G"}, {}, Path("/nonexistent"), source="command line")


def test_a_refused_variable_is_named() -> None:
    message = refusal(environ={"PICOWSGI_TIMEOUT_HEAD": "soon"})
    assert message == (
        "PICOWSGI_TIMEOUT_HEAD in the environment: expected a time from 0.001s to 86400s, "
        "such as 10, 2.5, 10s or 1m, got 'soon'"
    )


def test_a_refused_key_is_named_with_its_file(tmp_path: Path) -> None:
    path = write_project(tmp_path, "log_level = 'loud'")
    message = refusal(directory=tmp_path)
    assert message == (
        f"log_level in {path}: expected one of debug, info, warning, error, got 'loud'"
    )


# Kinds of values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("64K", 65536),
        ("64k", 65536),
        ("64 KiB", 65536),
        (" 64kib ", 65536),
        ("512B", 512),
        ("1M", 1 << 20),
        ("1 MiB", 1 << 20),
        ("1G", 1 << 30),
        ("1 GiB", 1 << 30),
        (4096, 4096),
        ("0", 0),
    ],
)
def test_a_size_is_read(text: object, size: int) -> None:
    assert load({"max_body_size": text}).max_body_size == size


@pytest.mark.parametrize(
    "text",
    ["", "K", "64 KB", "64KK", "-1", "+1", "1.5M", "1_000", "0x10", "\u0661", "9" * 30, 1.5, True],
)
def test_an_invalid_size_is_refused(text: object) -> None:
    assert f"got {text!r}" in refusal({"max_body_size": text})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10.0),
        ("10s", 10.0),
        ("10 s", 10.0),
        ("2.5", 2.5),
        (".5", 0.5),
        ("1m", 60.0),
        ("1.5m", 90.0),
        ("1h", 3600.0),
        (3, 3.0),
        (0.25, 0.25),
    ],
)
def test_a_time_is_read(text: object, seconds: float) -> None:
    read = load({"timeout_body": text}).timeout_body
    assert read == seconds
    assert isinstance(read, float)


@pytest.mark.parametrize(
    "text", ["", "s", "0", "-1", "1e3", "nan", "inf", "1 day", "90000", 0, float("inf"), True, [1]]
)
def test_an_invalid_time_is_refused(text: object) -> None:
    assert f"got {text!r}" in refusal({"timeout_body": text})


def test_nan_is_refused_too() -> None:
    assert "expected a time" in refusal({"timeout_body": float("nan")})


def test_the_graceful_timeout_may_be_zero() -> None:
    assert load({"timeout_graceful": "0"}).timeout_graceful == 0.0


@pytest.mark.parametrize("text", ["", "1.0", "0x1", "1_0", "+1", "-1", "65536", 1.0, False])
def test_an_invalid_port_is_refused(text: object) -> None:
    assert "expected a whole number from 0 to 65535" in refusal({"port": text})


@pytest.mark.parametrize(
    ("name", "minimum", "maximum"),
    [
        (option.name, option.minimum, option.maximum)
        for option in OPTIONS.values()
        if option.minimum is not None
    ],
)
def test_numbers_are_accepted_at_their_limits_and_refused_beyond(
    name: str, minimum: float, maximum: float
) -> None:
    for value in (minimum, maximum):
        assert getattr(load({name: value}), name) == value
    for value in (minimum - 1, maximum + 1):
        if value != maximum:
            assert f"option {name}: expected" in refusal({name: value})


def test_a_choice_is_read_in_any_case() -> None:
    assert load({"log_level": "DEBUG"}).log_level == "debug"


@pytest.mark.parametrize("value", ["", "verbose", 10, None.__class__])
def test_an_invalid_choice_is_refused(value: object) -> None:
    assert "expected one of drop, refuse, allow" in refusal({"underscore_fields": value})


@pytest.mark.parametrize("value", ["", "a b", "a/b", "127.0.0.1:80", "[::1", 7])
def test_an_invalid_host_is_refused(value: object) -> None:
    assert "option host: expected" in refusal({"host": value})


# Addresses


def test_host_and_port_make_one_address() -> None:
    assert load().binds() == [Bind("tcp", host="127.0.0.1", port=8000)]
    assert load({"host": "[::1]", "port": 1}).binds() == [Bind("tcp", host="::1", port=1)]


@pytest.mark.parametrize(
    "value",
    [["[::1]:1", "unix:/x"], ("[::1]:1", "unix:/x"), "[::1]:1,unix:/x", " [::1]:1 , unix:/x,"],
)
def test_several_addresses_are_a_list_or_text_with_commas(value: object) -> None:
    binds = [Bind("tcp", host="::1", port=1), Bind("unix", path="/x")]
    assert load({"bind": value}).binds() == binds


def test_several_addresses_come_from_the_environment_and_the_file(tmp_path: Path) -> None:
    write_project(tmp_path, "bind = ['fd://3', '127.0.0.1:0']")
    assert load(directory=tmp_path).bind == ("fd://3", "127.0.0.1:0")
    environ = {"PICOWSGI_BIND": "fd://4,127.0.0.1:1"}
    assert load({}, environ, tmp_path).bind == ("fd://4", "127.0.0.1:1")


@pytest.mark.parametrize("value", [7, [7], {"a": 1}])
def test_addresses_that_are_not_text_are_refused(value: object) -> None:
    assert "option bind: expected" in refusal({"bind": value})


def test_a_wrong_address_is_refused_with_its_option() -> None:
    assert refusal({"bind": ["127.0.0.1"]}).startswith("option bind: expected HOST:PORT, ")


@pytest.mark.parametrize("other", ["host", "port"])
def test_bind_with_host_or_port_in_the_same_place_is_refused(other: str) -> None:
    environ = {"PICOWSGI_BIND": "127.0.0.1:1", f"PICOWSGI_{other.upper()}": "1"}
    assert refusal(environ=environ) == (
        f"PICOWSGI_BIND in the environment: it replaces {other}, which is also given; "
        "use one or the other"
    )


def test_bind_overrides_host_and_port_of_a_lower_place() -> None:
    settings = load({"bind": ["127.0.0.1:1"]}, {"PICOWSGI_PORT": "2", "PICOWSGI_HOST": "::"})
    assert settings.binds() == [Bind("tcp", host="127.0.0.1", port=1)]


def test_bind_ignores_host_and_port_of_a_lower_place_and_nothing_else() -> None:
    below = {"PICOWSGI_PORT": "2", "PICOWSGI_THREADS": "3", "PICOWSGI_HOST": "::"}
    settings = load({"bind": ["127.0.0.1:1"]}, below)
    assert settings.threads == 3
    assert settings.port == 8000


def test_a_port_overrides_bind_of_a_lower_place() -> None:
    settings = load({"port": 2}, {"PICOWSGI_BIND": "127.0.0.1:1", "PICOWSGI_THREADS": "3"})
    assert settings.binds() == [Bind("tcp", host="127.0.0.1", port=2)]
    assert settings.threads == 3


def test_an_empty_list_in_the_file_means_that_no_value_was_given(tmp_path: Path) -> None:
    write_project(tmp_path, "bind = []\nport = 7")
    assert load(directory=tmp_path).binds() == [Bind("tcp", host="127.0.0.1", port=7)]
    path = write_project(tmp_path, "port = []")
    assert refusal(directory=tmp_path).startswith(f"port in {path}: expected a whole number")


def test_an_empty_bind_means_that_no_value_was_given() -> None:
    assert load({"bind": [], "port": 2}).binds() == [Bind("tcp", host="127.0.0.1", port=2)]


def test_port_in_the_environment_stands_for_our_variable() -> None:
    settings = load(environ={"PORT": "5000"})
    assert settings.port == 5000
    assert settings.sources["port"] == "PORT in the environment"


def test_our_variables_override_port_in_the_environment(tmp_path: Path) -> None:
    assert load(environ={"PORT": "5000", "PICOWSGI_PORT": "6000"}).port == 6000
    assert load(environ={"PORT": "5000", "PICOWSGI_BIND": "[::1]:1"}).bind == ("[::1]:1",)
    write_project(tmp_path, "port = 7000")
    assert load({}, {"PORT": "5000"}, tmp_path).port == 5000


def test_a_wrong_port_in_the_environment_is_refused_by_its_name() -> None:
    assert refusal(environ={"PORT": "http"}).startswith("PORT in the environment: expected")


# Workers, flags and modes


def test_workers_are_a_number_or_auto() -> None:
    from picowsgi.system.cpus import usable_cpus

    assert load({"workers": "3"}).workers == 3
    assert load({"workers": "Auto"}).workers == usable_cpus()
    for value in (0, "0", "many", 1.5, True):
        assert "expected auto or a whole number from 1" in refusal({"workers": value})


def test_web_concurrency_sets_the_workers_when_no_other_value_does(tmp_path: Path) -> None:
    write_project(tmp_path, "workers = 5")
    assert load({}, {"WEB_CONCURRENCY": "4"}, tmp_path).workers == 4
    assert load({}, {"WEB_CONCURRENCY": ""}, tmp_path).workers == 5
    assert load({}, {"WEB_CONCURRENCY": "4", "PICOWSGI_WORKERS": "3"}).workers == 3
    assert load({"workers": 2}, {"WEB_CONCURRENCY": "x"}).workers == 2
    assert "WEB_CONCURRENCY in the environment" in refusal({}, {"WEB_CONCURRENCY": "x"})


def test_a_flag_accepts_many_words_for_true_and_false() -> None:
    for value in (True, "on", "1", "True", " yes "):
        assert load({"preload": value}).preload is True
    for value in (False, "off", "0", "FALSE", "no"):
        assert load({"preload": value}).preload is False
    for value in (1, "maybe", None or 0):
        assert "expected true or false" in refusal({"preload": value})


def test_a_choice_between_on_and_off_and_more_accepts_the_words_of_a_flag_too() -> None:
    for value in (True, "on", "1", "True", " yes "):
        assert load({"access_log": value}).access_log == "on"
    for value in (False, "off", "0", "FALSE", "no"):
        assert load({"access_log": value}).access_log == "off"
    assert load({"access_log": "auto"}).access_log == "auto"
    assert "expected" in refusal({"access_log": 1})


def test_a_mode_is_octal_as_text_and_a_number_otherwise() -> None:
    for value in ("660", "0660", "0o660", 0o660):
        assert load({"unix_socket_mode": value}).unix_socket_mode == 0o660
    assert load({"umask": ""}).umask == -1
    assert OPTIONS["umask"].show(0o22) == "022"
    for value in ("8", "1000", 0o1000, -2, "rw"):
        assert "expected octal digits from 0 to 777" in refusal({"umask": value})


def test_the_keep_alive_timeout_is_longer_than_that_of_common_proxies() -> None:
    assert load().timeout_keep_alive >= 75


#: The variables that Kubernetes makes for a Service with two ports, and for one without a name.
OF_SERVICES = {
    "PICOWSGI_SERVICE_HOST": "10.0.0.1",
    "PICOWSGI_SERVICE_PORT": "8000",
    "PICOWSGI_SERVICE_PORT_HTTP": "8000",
    "PICOWSGI_PORT": "tcp://10.0.0.1:8000",
    "PICOWSGI_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "PICOWSGI_PORT_8000_TCP_PROTO": "tcp",
    "PICOWSGI_PORT_8000_TCP_PORT": "8000",
    "PICOWSGI_PORT_8000_TCP_ADDR": "10.0.0.1",
    "PICOWSGI_WEB_SERVICE_HOST": "fd00::1",
    "PICOWSGI_WEB_PORT": "udp://[fd00::1]:53",
    "PICOWSGI_WEB_PORT_53_UDP": "udp://[fd00::1]:53",
}


def test_variables_of_a_kubernetes_service_are_no_options() -> None:
    environ = {**OF_SERVICES, "PICOWSGI_THREADS": "3", "PORT": "5000"}
    settings = load(environ=environ)
    assert (settings.threads, settings.port) == (3, 5000)
    assert settings.ignored == tuple(OF_SERVICES)
    assert load(environ={"PICOWSGI_PORT": "8001"}).port == 8001


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PICOWSGI_PORT", "10.0.0.1:8000"),
        ("PICOWSGI_PORT", "http://10.0.0.1:8000"),
        ("PICOWSGI_PORT_8000_TCP_ADDRESS", "10.0.0.1"),
        ("PICOWSGI_PORT_8000_TCP_PORT", "8001"),
        ("PICOWSGI_SERVICE_PORT", "x"),
        ("PICOWSGI_SERVICE_HOSTS", "10.0.0.1"),
    ],
)
def test_variables_that_only_resemble_these_are_refused(variable: str, value: str) -> None:
    assert variable in refusal(environ={variable: value})


@pytest.mark.parametrize(
    "value",
    ["10.0.0.0/8, ::1,unix", ["10.0.0.0/8", "::1", "unix"], ("10.0.0.0/8,::1", " unix")],
)
def test_trusted_proxies_are_a_list_or_texts_with_commas(value: object) -> None:
    settings = load({"forwarded_allow_ips": value})
    assert settings.forwarded_allow_ips == ("10.0.0.0/8", "::1", "unix")
    assert settings.trusted() == [
        Trusted("v4", 8, bytes([10, 0, 0, 0])),
        Trusted("v6", 128, bytes(15) + b"\1"),
        Trusted("unix"),
    ]


def test_headers_of_other_peers_are_removed_where_the_option_is_given() -> None:
    assert not load().drops_forwarded
    assert [one.kind for one in load().trusted()] == ["v4", "v6", "unix"]
    assert load({"forwarded_allow_ips": "127.0.0.1,::1,unix"}).drops_forwarded
    assert load({}, {"PICOWSGI_FORWARDED_ALLOW_IPS": "none"}).drops_forwarded
    assert load({"forwarded_allow_ips": "none"}).trusted() == []
    assert load({"forwarded_allow_ips": ""}).trusted() == []
    assert load({"forwarded_allow_ips": "*"}).trusted() == [Trusted("all")]


def test_an_ipv4_network_in_ipv6_form_is_the_ipv4_network() -> None:
    for text, bits in (("::ffff:10.0.0.0/104", 8), ("::ffff:10.1.2.3", 32), ("::ffff:0:0/96", 0)):
        ((kind, found, address),) = load({"forwarded_allow_ips": text}).trusted()
        assert (kind, found, len(address)) == ("v4", bits, 4)
    assert load({"forwarded_allow_ips": "::/0"}).trusted() == [Trusted("v6", 0, bytes(16))]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost", "'localhost' is none of them"),
        ("10.0.0.256", "'10.0.0.256' is none of them"),
        ("10.0.0.0/33", "'10.0.0.0/33' is none of them"),
        ("10.0.0.1/8", "'10.0.0.1/8' is an address in the network 10.0.0.0/8"),
        ("2001:db8::1/32", "'2001:db8::1/32' is an address in the network 2001:db8::/32"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone"),
        ("Unix", "'Unix' is none of them"),
    ],
)
def test_what_names_no_proxy_is_refused(text: str, why: str) -> None:
    message = refusal({"forwarded_allow_ips": f"127.0.0.1,{text}"})
    assert message == (
        "option forwarded_allow_ips: expected IP addresses, networks such as 10.0.0.0/8, unix, * "
        f"or none; {why}, got {text!r}"
    )


@pytest.mark.parametrize("value", [3, ["10.0.0.1", 3]])
def test_trusted_proxies_that_are_no_text_are_refused(value: object) -> None:
    assert "expected texts" in refusal({"forwarded_allow_ips": value})


@pytest.mark.parametrize("path", ["", "/app", "/a/b", "/caf\xe9"])
def test_a_root_path_is_as_it_is_given(path: str) -> None:
    assert load({"root_path": path}).root_path == path


@pytest.mark.parametrize("path", ["app", "/", "/app/", "//a", "/a/./b", "/a?b", "/a%20", "/a#b"])
def test_what_is_no_root_path_is_refused(path: str) -> None:
    assert refusal({"root_path": path}).startswith("option root_path: expected a path such as /api")
