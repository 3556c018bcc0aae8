"""Sensors: the adapter contract, options, composition, normalization, `sensor.toml`, and the built-in sensors."""
