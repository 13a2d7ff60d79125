"""The command ``cwrv``."""
