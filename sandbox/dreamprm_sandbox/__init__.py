"""Run untrusted programs in hardened containers; the host compares, verdicts cannot be faked."""
