"""Which route a call takes, and with which credential. Today: explicit arguments, then the environment."""
