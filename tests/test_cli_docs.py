"""Every command and option has a help text and its place in docs/commands.md."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from nvcodec.cli import commands as cli

COMMANDS_PAGE = (Path(__file__).parent.parent / "docs" / "commands.md").read_text(encoding="utf-8")
COMMANDS = sorted(cli.main.commands.items())


def chapter(name: str) -> str:
    """What the page says under the heading of a command."""
    found = re.findall(rf"^## `cwrv {name}`\n(.*?)(?=^## |\Z)", COMMANDS_PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def options() -> list[tuple[str, click.Option]]:
    return [(name, p) for name, command in COMMANDS for p in command.params if isinstance(p, click.Option)]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_commands(name: str, command: click.Command) -> None:
    assert command.help
    usage = next(line for line in chapter(name).splitlines() if line.startswith(f"cwrv {name} "))
    for param in command.params:
        if isinstance(param, click.Argument):
            assert str(param.metavar) in usage


@pytest.mark.parametrize(("name", "option"), options(), ids=lambda value: getattr(value, "name", value))
def test_options(name: str, option: click.Option) -> None:
    assert option.help
    assert option.help.endswith(".")
    rows = [row for row in chapter(name).splitlines() if row.startswith("| ")]
    matching = [row for row in rows if all(f"`{flag}" in row.split(" | ")[0] for flag in option.opts)]
    assert len(matching) == 1
    if isinstance(option.type, click.Choice):
        assert all(f"`{choice}`" in matching[0] for choice in option.type.choices)


def test_nothing_else_is_documented() -> None:
    """No option in docs/commands.md that the command does not have."""
    assert re.findall(r"^## `cwrv (\w+)`", COMMANDS_PAGE, flags=re.MULTILINE) == [
        "encode",
        "decode",
        "info",
        "verify",
        "rd",
    ]
    for name, command in COMMANDS:
        known = {flag for param in command.params for flag in param.opts}
        told = set(re.findall(r"`(--?[a-z-]+)", chapter(name)))
        assert told <= known, name


def test_general_options() -> None:
    for param in cli.main.params:
        assert isinstance(param, click.Option)
        assert param.help
        assert f"`{param.opts[0]}`" in COMMANDS_PAGE
