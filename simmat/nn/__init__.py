"""Networks: transfer layers, tuners, losses, resizing. They take plain values: no config, no registry."""
