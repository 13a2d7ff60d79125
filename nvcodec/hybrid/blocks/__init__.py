"""Frames as blocks, predicted from other frames or from the blocks decoded before.

The picture is a quadtree of square blocks. Each is predicted by the references, or from the samples around it, along a
direction, and a transform of the block carries what is left. ``layout`` says what is coded, ``bins_cpu`` how a bit of
it meets the range coder, ``contexts`` how probable it is at first, ``syntax_cpu`` in which order it comes,
``prediction_cpu``, ``transform_cpu`` and ``rebuild_cpu`` what comes out, and ``picture`` puts all of it together.
"""
