"""Motion of a frame and what its references come to by it: all of it in integers."""
