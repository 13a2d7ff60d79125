"""The packages that only ``cwrv rd`` needs: the extra ``rd`` of the distribution."""

from __future__ import annotations

from importlib.util import find_spec

from nvcodec.core.errors import InputError

__all__ = ["require_extra"]

PACKAGES = ("bjontegaard", "matplotlib", "PIL", "pytorch_msssim")


def require_extra() -> None:
    """Looks for the packages without loading them.

    Raises:
        InputError: one is missing; the message says how to install them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"rd needs {', '.join(missing)}: pip install 'nvcodec[rd]'")
