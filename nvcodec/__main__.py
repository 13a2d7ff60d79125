"""``python -m nvcodec`` is ``cwrv``."""

from __future__ import annotations

from nvcodec.cli import main

if __name__ == "__main__":
    main(prog_name="cwrv")
