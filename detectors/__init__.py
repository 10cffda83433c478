"""Pure statistics: arrays in, evidence out. No I/O, no clock, no randomness without a seed."""
