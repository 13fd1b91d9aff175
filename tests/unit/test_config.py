"""Settings: read from the file and the environment, refused with the place of the mistake, and documented."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from ovsnet import config
from ovsnet.config import Settings, load
from ovsnet.errors import ConfigError

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [one for one in os.environ if one.upper().startswith(config.ENV_PREFIX)]:
        monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ovsnet.toml"


def refused(file: Path, text: str) -> ConfigError:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return caught.value


def test_without_a_file_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "absent.toml")
    settings = load()
    assert settings.node
    assert settings.api_socket == settings.run_dir / "ovsnet.sock"
    assert settings.names.prefix == settings.device_prefix


def test_a_file_that_was_named_must_exist(file: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load(file)
    assert str(file) in caught.value.message
    assert "--config" in caught.value.hint


def test_the_file_is_read(file: Path) -> None:
    file.write_text(
        'node = "h1"\nmtu = 9000\nstate_remotes = ["ssl:10.0.0.1:6645", "ssl:10.0.0.2:6645"]\nsocket = "/x.sock"\n'
    )
    settings = load(file)
    assert (settings.node, settings.mtu, settings.api_socket) == ("h1", 9000, Path("/x.sock"))
    assert settings.state_remotes == ("ssl:10.0.0.1:6645", "ssl:10.0.0.2:6645")


def test_the_environment_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("mtu = 9000\nworkers = 8\n")
    monkeypatch.setenv("OVSNET_MTU", "1400")
    monkeypatch.setenv("OVSNET_STATE_REMOTES", '["unix:/a.sock"]')
    settings = load(file)
    assert (settings.mtu, settings.workers, settings.state_remotes) == (1400, 8, ("unix:/a.sock",))


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_one(file: Path) -> None:
    error = refused(file, 'node = "h1"\n\n# a comment\nbrige = "br0"\n')
    assert error.message == f"{file}:4: unknown key 'brige'"
    assert error.hint == "did you mean 'bridge'?"


@pytest.mark.parametrize("text", ["[server]\nport = 1\n", "server.port = 1\n", '"server" = 1\n'])
def test_an_unknown_table_is_refused_with_its_line(file: Path, text: str) -> None:
    error = refused(file, "\n" + text)
    assert error.message == f"{file}:2: unknown key 'server'"
    assert error.hint


def test_an_unknown_variable_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSNET_BRIGE", "br0")
    error = refused(file, "")
    assert "'OVSNET_BRIGE'" in error.message
    assert error.hint == "did you mean 'bridge'?"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("mtu = 67", "mtu"),
        ('mtu = "big"', "mtu"),
        ("workers = 1", "workers"),
        ("deadline = 0", "deadline"),
        ("address_cooldown = -1", "address_cooldown"),
        ('datapath = "kernel"', "datapath"),
        ('device_prefix = "toolong"', "device_prefix"),
        ('bridge = "a/b"', "bridge"),
        ('node = ""', "node"),
        ('state_remotes = "ssl:10.0.0.1:6645"', "state_remotes"),
        ("vlan_first = 0", "vlan_first"),
        ("vlan_last = 4095", "vlan_last"),
    ],
)
def test_a_bad_value_is_refused_with_its_line(file: Path, line: str, key: str) -> None:
    error = refused(file, f'log_level = "debug"\n{line}\n')
    assert error.message.startswith(f"{file}:2: {key}: ")


def test_vlan_range_upside_down(file: Path) -> None:
    assert "vlan_last 5 lies below vlan_first 9" in refused(file, "vlan_first = 9\nvlan_last = 5\n").message


@pytest.mark.parametrize(("variable", "value"), [("OVSNET_MTU", "big"), ("OVSNET_STATE_REMOTES", "ssl:10.0.0.1:6645")])
def test_a_bad_value_of_the_environment_names_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    error = refused(file, "mtu = 9000\n")
    assert error.message.startswith("environment: ")
    assert variable.removeprefix("OVSNET_").lower() in error.message.lower()


def test_text_that_is_no_toml_is_refused_with_the_place(file: Path) -> None:
    error = refused(file, 'node = "h1"\nmtu = = 1\n')
    assert str(file) in error.message
    assert "line 2" in error.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'node = "\xe9"\n')
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "latin.toml")


# -- the document -----------------------------------------------------------------------------------------------------


def rows() -> dict[str, tuple[str, str]]:
    """Key -> (default, description) as docs/settings.md has them."""
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {key: (default, description) for key, default, description in found}


def as_toml(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, tuple):
        return "`[]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, (str, Path)) else f"`{value}`"


def test_every_key_is_documented_and_no_other() -> None:
    assert list(rows()) == list(Settings.model_fields)


@pytest.mark.parametrize("key", Settings.model_fields)
def test_default_and_description_are_those_of_the_code(key: str) -> None:
    field = Settings.model_fields[key]
    assert rows()[key] == (as_toml(field.default), field.description)


def test_the_example_is_valid(file: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    file.write_text(example[1])
    assert load(file).node == "host1"
