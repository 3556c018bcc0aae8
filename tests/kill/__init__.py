"""Commands killed at random moments, see README.md."""
