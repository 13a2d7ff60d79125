"""The mixed residual grid: its appearance levels. Those of motion stand in ``nvcodec.motion``."""
