"""Sensors described by a `sensor.toml`, without a line of code."""

from simmat.declared.adapter import DeclaredModality, declarations_of
from simmat.declared.read import parse_declaration, read_sensor
from simmat.declared.schema import Declaration

__all__ = ["Declaration", "DeclaredModality", "declarations_of", "parse_declaration", "read_sensor"]
