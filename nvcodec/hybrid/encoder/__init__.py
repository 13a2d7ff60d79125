"""How a segment becomes a payload of the hybrid representation."""
