"""The hybrid representation: motion, blocks, and a recurrent cell that mends what the blocks come to."""
