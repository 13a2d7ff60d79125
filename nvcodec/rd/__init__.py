"""Curves of rate and quality against anchors."""
