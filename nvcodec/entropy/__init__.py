"""Symbols in and out of the range coder, and the models that say how probable they are."""
