"""Videos in and out: PyAV, y4m, and output files that appear whole or not at all."""
