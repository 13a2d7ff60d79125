"""Finished work on disk, so that nothing is computed twice.

::

    FOLDER/NAME-0123456789ab.json    {"key": ..., "record": ..., "payload": {"file": ..., "sha256": ...}}
    FOLDER/NAME-0123456789ab.cwrv    the payload, where there is one

The digits are a hash of the key, and the key is everything that the result depends on: content, options,
versions. A result counts only if its key is the same to the letter and its payload has the hash it should
have; anything else, a damaged file for one, counts as absent. Files appear whole or not at all, the payload
before the JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvcodec.core.errors import OutputError
from nvcodec.media.output_file import atomic_output

__all__ = ["Entry", "Store", "key_digest"]

Json = Any
"""What ``json`` can hold."""


def key_digest(key: Mapping[str, Json]) -> str:
    """Twelve hexadecimal digits of a hash of ``key``."""
    return hashlib.sha256(_canonical(key)).hexdigest()[:12]


def _canonical(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Entry:
    """A finished result. ``payload``: its file, and ``sha256`` the hash of that; None where it has none."""

    record: dict[str, Json]
    payload: Path | None = None
    sha256: str | None = None


class Store:
    """The results in one folder, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, key: Mapping[str, Json], suffix: str) -> Path:
        """Where the file of a result lies, or would."""
        return self.folder / f"{name}-{key_digest(key)}{suffix}"

    def get(self, name: str, key: Mapping[str, Json]) -> Entry | None:
        """The result of ``key``, None if it is not there as a whole."""
        try:
            found = json.loads(self.path(name, key, ".json").read_bytes())
            if _canonical(found["key"]) != _canonical(key):
                return None
            if found["payload"] is None:
                return Entry(found["record"])
            payload, digest = self.folder / found["payload"]["file"], found["payload"]["sha256"]
            return Entry(found["record"], payload, digest) if _file_hash(payload) == digest else None
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: to be made again
            return None

    def prepare(self) -> None:
        """Makes the folder.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.folder}: {error.strerror or error}") from error

    def put(
        self,
        name: str,
        key: Mapping[str, Json],
        record: dict[str, Json],
        *,
        data: bytes | None = None,
        file: Path | None = None,
        suffix: str = "",
    ) -> Entry:
        """Keeps a result: ``data`` becomes a file that ends in ``suffix``, ``file`` already lies in the folder.

        Raises:
            OutputError: it cannot be written.
        """
        self.prepare()
        if data is not None:
            file = self.path(name, key, suffix)
            with atomic_output(file, overwrite=True) as temporary:
                temporary.write_bytes(data)
        digest = _file_hash(file) if file is not None else None
        payload = {"file": file.name, "sha256": digest} if file is not None else None
        text = json.dumps({"key": key, "record": record, "payload": payload}, indent=1, allow_nan=False)
        with atomic_output(self.path(name, key, ".json"), overwrite=True) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return Entry(record, file, digest)


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
