"""Damaged files against every reader, see README.md."""
