"""Pure policy: no I/O, no clock, no randomness of its own; everything comes in as an argument."""
