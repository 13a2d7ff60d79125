"""What every room stands on: errors, limits, frames, the order of coding, exact arithmetic, devices and threads."""
