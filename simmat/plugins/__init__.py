"""Plugins: the hooks, the loader that isolates each plugin, and the registry of what they bring."""
