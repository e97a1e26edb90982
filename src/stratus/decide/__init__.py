"""Pure decisions, one file per question. No I/O, no clock, no randomness."""
