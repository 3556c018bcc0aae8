"""Sensors: the adapter contract, composition, channels, normalization, and the sensors that come with SimMAT."""
