"""How the `ovsnet` command tells things: formats, --watch, completion, help."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

import ovsnet
from ovsnet.check import Finding, Kind
from ovsnet.cli import help as help_module
from ovsnet.cli import listing, session
from ovsnet.cli.main import cli
from ovsnet.errors import Unavailable
from tests.fake_controller import FakeController
from tests.unit.test_cli import rows, terminal

Run = Callable[..., Result]


@pytest.fixture
def made(run: Run) -> str:
    """Two networks, and an endpoint on the first; its id."""
    run("network", "create", "blue", "--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64")
    run("network", "create", "red", "--subnet", "10.2.0.0/24")
    made = run("endpoint", "create", "--network", "blue", "--netns", "/n", "--container", "c" * 64, "-o", "name")
    return made.stdout.strip()


def test_yaml_is_what_json_is(run: Run, made: str) -> None:
    for words in (
        ("network", "ls"),
        ("endpoint", "show", made),
        ("pool", "show", "blue-4"),
        ("ipam", "check"),
        ("status",),
    ):
        told = run(*words, "-o", "yaml").stdout
        assert yaml.safe_load(told) == json.loads(run(*words, "-o", "json").stdout)
        assert "{" not in told.replace("{}", "")
    for words in (("pool", "show", "green"), ("pool", "destroy")):
        refused = run("-o", "yaml", *words)
        assert yaml.safe_load(refused.stderr) == json.loads(run("-o", "json", *words).stderr)


def test_names_are_for_scripts(run: Run, made: str) -> None:
    assert rows(run("network", "ls", "-o", "name")) == [["blue"], ["red"]]
    assert rows(run("pool", "ls", "-o", "name")) == [["blue-4"], ["blue-6"], ["red-4"]]
    assert rows(run("endpoint", "ls", "-o", "name")) == [[made]]
    assert rows(run("endpoint", "show", made[:8], "-o", "name")) == [[made]]
    assert rows(run("ipam", "show", "-o", "name")) == [["10.1.0.2"], ["fd00:1::2"]]
    assert rows(run("pool", "create", "p", "--subnet", "10.9.0.0/24", "-o", "name")) == [["p"]]


def test_wide_shows_every_column(path: str, run: Run, made: str) -> None:
    assert run("endpoint", "ls", "-o", "wide").stdout == run("endpoint", "ls").stdout
    lines = terminal(60, "--socket", path, "endpoint", "ls", "-o", "wide")
    assert "NODE" in lines[0].split()
    assert "NODE" not in terminal(60, "--socket", path, "endpoint", "ls")[0].split()
    assert made[:8] in lines[1]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_watch_lists_again_when_it_changes(path: str, run: Run, output: str) -> None:
    argv = ["env", "--default-signal=INT"]  # which is ignored below a shell's `&`
    argv += [sys.executable, "-c", "from ovsnet.cli.main import main; main()"]
    argv += ["--socket", path, "pool", "ls", "--watch", "-o", output]
    here = Path(ovsnet.__file__).parents[1]
    run("pool", "create", "blue", "--subnet", "10.1.0.0/24")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=here) as watching:
        try:
            assert watching.stdout is not None
            seen = iter(watching.stdout.readline, "")
            told = next(seen)  # it has looked
            run("pool", "create", "red", "--subnet", "10.2.0.0/24")
            for line in seen:
                told += line
                if "red" in line:
                    break
        finally:
            watching.send_signal(signal.SIGINT)
            left, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    told += left
    documents = list(yaml.safe_load_all(told)) if output == "yaml" else [json.loads(line) for line in told.splitlines()]
    assert [[pool["name"] for pool in one] for one in documents] == [["blue"], ["blue", "red"]]


def test_who_watches_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAUSE", 0.001)
    answers: Iterator[list[dict[str, str]] | Unavailable] = iter(
        [Unavailable("gone"), [{"name": "blue"}], Unavailable("gone"), [{"name": "red"}]]
    )

    def ask() -> list[dict[str, str]]:
        answer = next(answers)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    assert listing._changed(ask, [{"name": "blue"}]) == [{"name": "red"}]
    monkeypatch.setattr(listing, "PATIENCE", 0.01)

    def gone() -> list[dict[str, str]]:
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        listing._changed(gone, [])


def test_long_work_tells_how_far_it_is(path: str, run: Run, made: str, controller: FakeController) -> None:
    controller.findings = [Finding(Kind.NAMESPACE_GONE, "web", "has gone", "detach it")]
    assert made
    lines = terminal(80, "--socket", path, "network", "rm", "--force", "blue", "red")
    told = [line.removeprefix("\x1b[K") for line in lines]  # a carriage return ends a line, too
    assert [line for line in told if line in ("blue", "red")] == ["blue", "red"]
    assert any("taking endpoints off blue" in line for line in told)
    checked = run("ipam", "check", "--repair")
    assert checked.exit_code == 0
    assert "mended" in checked.stdout
    assert checked.stderr == ""  # no terminal


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell], prog_name="ovsnet")
    assert done.exit_code == 0
    assert f"_OVSNET_COMPLETE={shell}_complete" in done.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True, timeout=30)


def complete(*words: str) -> list[str]:
    """What bash would be told for a command line whose last word is being typed."""
    environment = {
        "_OVSNET_COMPLETE": "bash_complete",
        "COMP_WORDS": shlex.join(["ovsnet", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = CliRunner(env=environment).invoke(cli, [], prog_name="ovsnet")
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_are_completed(path: str, made: str, tmp_path: Path) -> None:
    here = ("--socket", path)
    assert complete(*here, "network", "rm", "") == ["blue", "red"]
    assert complete(*here, "network", "rm", "blue", "") == ["red"]
    assert complete(*here, "pool", "show", "blue-") == ["blue-4", "blue-6"]
    assert complete(*here, "endpoint", "rm", made[:3]) == [made]
    assert complete(*here, "endpoint", "ls", "--network", "r") == ["red"]
    assert complete("--socket", str(tmp_path / "absent.sock"), "network", "rm", "") == []
    assert complete("net") == ["network"]
    assert complete("-o", "y") == ["yaml"]
    assert complete("help", "ap") == ["apply"]


def test_help_lists_its_topics_and_explains_them() -> None:
    wanted = {"networks", "pools", "cni", "docker", "exit-codes", "apply", "faults"}
    assert wanted <= set(help_module.topics())
    listed = CliRunner().invoke(cli, ["help"], prog_name="ovsnet")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == help_module.topics()
    for topic in help_module.topics():
        told = CliRunner().invoke(cli, ["help", topic], prog_name="ovsnet")
        assert (told.exit_code, told.stdout) == (0, help_module.text(topic))
        assert max(map(len, told.stdout.splitlines())) <= 130
    for word, hint in (
        ("netwroks", "did you mean 'networks'?"),
        ("pool", "ovsnet pool --help"),
        ("x", "the topics are"),
    ):
        refused = CliRunner().invoke(cli, ["help", word], prog_name="ovsnet")
        assert refused.exit_code == 2
        assert hint in refused.stderr


def test_every_command_in_the_help_exists() -> None:
    for topic in help_module.topics():
        text = help_module.text(topic)
        lines = [line.strip() for line in text.splitlines() if line.startswith("    ovsnet ")]
        for line in lines + re.findall(r"`(ovsnet [^`]+)`", text):
            command: click.Command = cli
            words = shlex.split(line)[1:]
            while isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
            assert {word for word in words if word.startswith("-")} <= options, line
        for name in re.findall(r"ovsnet help ([\w-]+)", text):
            assert name in help_module.topics()
        for name in re.findall(r"docs/[\w.]+\.md", text):
            assert (Path(__file__).parents[2] / name).exists()
    for number in (0, session.EXIT_FAILURE, *(number for _, number in session.EXIT_CODES)):
        assert f"\n  {number}  " in help_module.text("exit-codes")
