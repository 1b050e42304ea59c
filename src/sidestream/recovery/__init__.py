"""What to do when a stream breaks. Pure: no I/O, no clock, no randomness of its own, no threads.

Read `flow` first: it is the whole story of a call. `faults` says what went wrong, `rungs` which way back is
open, `policy` how often and how long, `clocks` when waiting has been too long, `exchange` and `delivery` what
happens to the bytes of one attempt.
"""
