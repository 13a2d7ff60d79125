"""From a video to a file: what any representation's encoder is made of, and the pipeline that uses one."""
