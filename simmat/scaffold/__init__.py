"""A new sensor plugin, made from a template: a package that passes its own checks and tests at once."""

from simmat.scaffold.make import check_name, make_plugin

__all__ = ["check_name", "make_plugin"]
