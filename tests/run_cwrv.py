"""Runs the command ``cwrv`` in this process, and judges how it failed."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from nvcodec.cli import commands as cli

__all__ = ["cwrv", "fails"]


def cwrv(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], input=stdin, prog_name="cwrv")


def fails(result: Result, status: int, *words: str) -> None:
    """The last line on standard error says so; with status 1 it is the only one."""
    assert (result.exit_code, result.stdout) == (status, "")
    lines = result.stderr.splitlines()
    if status == 1:
        assert len(lines) == 1
        assert lines[0].startswith("cwrv: error: ")
    for word in words:
        assert word in lines[-1]
