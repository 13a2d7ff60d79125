"""What the bytes of a file depend on beside its source and the options: code and libraries.

A version number alone does not tell one state of a codec under development from the next, so a hash of the code
stands beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from nvcodec import __version__

__all__ = ["codec_versions", "fingerprint"]

_PACKAGE = Path(__file__).parent.parent
_NOT_THE_CODEC = ("rd/", "cli/", "__main__")


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """A hash of the names, relative to ``folder``, and the contents of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


@cache
def codec_versions() -> dict[str, str]:
    """Versions of the package, of its code (all but ``rd`` and the command line), and of what computes for it."""
    files = [path for path in _PACKAGE.rglob("*") if path.suffix in (".py", ".bin")]
    files = [path for path in files if not path.relative_to(_PACKAGE).as_posix().startswith(_NOT_THE_CODEC)]
    libraries = {name: metadata.version(name) for name in ("torch", "numpy", "constriction")}
    return {"nvcodec": __version__, "code": fingerprint(_PACKAGE, files)} | libraries
