"""How `lite` is pretrained: views of photographs, start weights, and the packaged weights of a run.

It is no part of the package: from a clone, in `plugins/simmat-plugin-lite`, as `python -m pretraining`.
"""
