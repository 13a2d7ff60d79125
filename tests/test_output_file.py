"""An output appears whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nvcodec.core.errors import OutputError
from nvcodec.media.output_file import atomic_output, check_target, checkpoint_path, output_lock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_file_gets_its_name(tmp_path: Path) -> None:
    target = tmp_path / "clip.mkv"
    with atomic_output(target, overwrite=False) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mkv"
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names(tmp_path) == ["clip.mkv"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_output(tmp_path / "a", overwrite=False) as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def write_then_raise(target: Path, error: BaseException, *, overwrite: bool) -> None:
    with atomic_output(target, overwrite=overwrite) as temporary:
        temporary.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_is_left_after_an_exception(tmp_path: Path, error: BaseException, existing: bool) -> None:
    target = tmp_path / "clip.mkv"
    if existing:
        target.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_then_raise(target, error, overwrite=True)
    assert names(tmp_path) == (["clip.mkv"] if existing else [])
    if existing:
        assert target.read_bytes() == b"old"


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "clip.mkv"
    target.write_bytes(b"old")
    with (
        pytest.raises(OutputError, match=r"clip\.mkv exists; use -y to overwrite$"),
        atomic_output(target, overwrite=False),
    ):
        pytest.fail("the body must not run")
    assert target.read_bytes() == b"old"
    with atomic_output(target, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["clip.mkv"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    target = tmp_path / "clip.mkv"
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OutputError, match="exists; use -y"):
        write_while_another_does(target)
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["clip.mkv"]


def write_while_another_does(target: Path) -> None:
    with atomic_output(target, overwrite=False) as temporary:
        temporary.write_bytes(b"mine")
        target.write_bytes(b"theirs")


def no_links(source: Path, target: Path) -> None:
    """What os.link does on FAT."""
    raise OSError(errno.EPERM, "Operation not permitted")


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    with atomic_output(tmp_path / "a.mkv", overwrite=False) as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["a.mkv"]


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"cannot write .*clip\.mkv: No space left on device$"):
        write_then_raise(tmp_path / "clip.mkv", full, overwrite=False)
    assert names(tmp_path) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.mkv"
    real.write_bytes(b"old")
    link = tmp_path / "link.mkv"
    link.symlink_to(real)
    with atomic_output(link, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        check_target(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match=r"directory .*nowhere does not exist"):
        check_target(tmp_path / "nowhere" / "a.mkv", overwrite=True)
    with pytest.raises(OutputError, match="not a regular file"):
        check_target(Path(os.devnull), overwrite=True)
    with pytest.raises(OutputError, match="null byte"), atomic_output(Path("a\0b"), overwrite=True):
        pytest.fail("the body must not run")
    for long_name in (tmp_path / ("n" * 250 + ".mkv"), tmp_path / ("長" * 83 + ".mkv")):
        with output_lock(long_name), atomic_output(long_name, overwrite=False) as temporary:
            temporary.write_bytes(b"x")
            checkpoint_path(long_name).touch()
        assert long_name.read_bytes() == b"x"
    with pytest.raises(OutputError, match="name too long"):
        check_target(tmp_path / ("n" * 300), overwrite=True)
