"""SimMAT: bring any image sensor to a vision foundation model."""

__version__ = "0.1.0"
