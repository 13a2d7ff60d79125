"""Output files that appear whole or not at all.

A file is written under a temporary name next to its target and takes the target's name only when it is
complete and on disk. A crash, an error or Ctrl-C leaves the target as it was: absent, or the old file.

Long work on one output keeps others from it with :func:`output_lock`, and may leave a checkpoint beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nvcodec.core.errors import OutputError

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "atomic_output",
    "check_target",
    "checkpoint_path",
    "output_lock",
    "remove_temporaries",
    "remove_with_temporary",
    "temporary_copy",
]

_temporaries: set[Path] = set()
"""Files of this process that must not outlive it."""
_making = threading.Lock()
"""Held while such a file comes into being, and for ever once the process ends."""


def checkpoint_path(path: Path) -> Path:
    """Where the checkpoint of an encode to ``path`` lies: beside the file, and beside no link to it."""
    target = path.resolve() if path.is_symlink() else path
    return target.with_name(f"{_start_of(target.name)}.checkpoint")


def remove_temporaries() -> None:
    """For a process that has to end at once, with no time to leave its ``with`` blocks. No more are made after it."""
    _making.acquire(timeout=1)
    for path in list(_temporaries):
        with contextlib.suppress(OSError):
            path.unlink()


def remove_with_temporary(path: Path) -> None:
    """Remove a file that was written with ``alone``, and what a killed process left of the next one."""
    for file in (path, _temporary(path.resolve(), alone=True)):
        with contextlib.suppress(OSError):
            file.unlink()


def check_target(path: Path, *, overwrite: bool) -> None:
    """Whether ``path`` can be written, as far as can be told before any work is done.

    Raises:
        OutputError: it is a directory or another thing that is not a file, its directory does not exist or is
            not writable, or it exists and ``overwrite`` is not set.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a directory")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file")
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{path} exists; use -y to overwrite")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: directory {path.parent} does not exist")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {path}: directory {path.parent} is not writable")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_explain(error)}") from error


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Holds ``path`` for this process: whoever else asks for it meanwhile is refused.

    The lock is one of the operating system (``flock``) on a hidden file beside the output, ``.NAME.lock``. It ends
    with the process, however that ends: what a killed process leaves behind locks nothing, and the next one removes
    it. Where the system or the file system has no such locks, there is none: outputs still appear whole, and the
    last one stays.

    Raises:
        OutputError: another process, or another thread of this one, holds it; or the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    try:
        target = path.resolve()
        lock = target.with_name(f".{_start_of(target.name)}.lock")
        with _making:
            descriptor = _lock(lock)
            _temporaries.add(lock)
    except BlockingIOError:
        raise OutputError(f"{path} is being written by another process") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {_explain(error)}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()  # while it is held: who has it open already, looks again
        _temporaries.discard(lock)
        os.close(descriptor)


def _lock(lock: Path) -> int:
    """An open file that holds the lock; BlockingIOError where another one does."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a file system without locks
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        os.close(descriptor)  # its last holder has removed it meanwhile


@contextmanager
def atomic_output(path: Path, *, overwrite: bool, alone: bool = False) -> Iterator[Path]:
    """Yields a temporary path to write to; on leaving without an exception it becomes ``path``.

    The temporary file lies in the same directory, has the same suffix (muxers choose the format by it) and
    already exists, empty. It is synced to disk before it is renamed, and removed on any exception, Ctrl-C
    included. Without ``overwrite``, a file that appeared at ``path`` meanwhile is kept and an error raised.
    A symbolic link is followed: the file it points to is replaced. ``alone``: the caller holds the lock, so that
    the temporary name can always be the same, and what a killed process left there is overwritten.

    Raises:
        OutputError: as :func:`check_target`, or the operating system failed while writing (``OSError`` from
            the body included, a full disk for one).
    """
    check_target(path, overwrite=overwrite)
    try:
        target = path.resolve()
        temporary = _temporary(target, alone=alone)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise OutputError(f"cannot write {path}: {_explain(error)}") from error
    try:
        with _making:
            _temporaries.add(temporary)
            # Mode 0o666 less the umask: what the finished file would have had if opened directly.
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY | (os.O_TRUNC if alone else os.O_EXCL), 0o666))
        yield temporary
        _sync(temporary)
        _publish(temporary, target, overwrite=overwrite)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_explain(error)}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        _temporaries.discard(temporary)


@contextmanager
def temporary_copy(stream: BinaryIO) -> Iterator[Path]:
    """A file with all that ``stream`` gives, which is removed on leaving: for what has to be read more than once.

    Raises:
        OutputError: the directory for temporary files cannot take it.
    """
    with _making:
        descriptor, name = tempfile.mkstemp(prefix="nvcodec-")
        path = Path(name)
        _temporaries.add(path)
    try:
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {_explain(error)}") from error
        yield path
    finally:
        path.unlink(missing_ok=True)
        _temporaries.discard(path)


def _temporary(target: Path, *, alone: bool) -> Path:
    """A name beside ``target`` that no one else uses; the same one every time for who is ``alone``."""
    if alone and fcntl is not None:
        token = hashlib.blake2b(os.fsencode(target.name), digest_size=4).hexdigest()
    else:
        token = secrets.token_hex(4)
    return target.with_name(f".{_start_of(target.stem)}.{token}.part{target.suffix}")


def _start_of(name: str) -> str:
    """What of a name leaves room for more: file systems allow 255 bytes."""
    return os.fsencode(name)[:200].decode(errors="ignore")


def _explain(error: OSError | ValueError) -> str:
    """The reason alone, without errno and file names."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _sync(path: Path) -> None:
    """Forces a file, or the entries of a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Gives the finished file its name, in one step."""
    if overwrite:
        os.replace(temporary, target)
    else:
        try:
            os.link(temporary, target)  # fails, and touches nothing, when the name is taken
        except FileExistsError:
            raise OutputError(f"{target} exists; use -y to overwrite") from None
        except OSError:  # a file system without hard links: the best that is left is to look once more
            if os.path.lexists(target):
                raise OutputError(f"{target} exists; use -y to overwrite") from None
            os.replace(temporary, target)
    with contextlib.suppress(OSError):  # some file systems cannot sync a directory
        _sync(target.parent)
