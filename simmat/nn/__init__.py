"""Networks: transfer layers, tuners, losses, resizing. Plain values in; no config, no registry."""
