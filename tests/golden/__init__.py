"""Golden outputs: what the documented commands write, kept as digests in `golden.json`."""
