"""Plugins: the hooks, the loader that isolates each, and the registry of what they bring."""
