"""Damaged files against every reader: each ends in a value that holds what it promises, or in a SimMATError.

A case is a small valid file (`seeds`), damaged at random (`damage`, `damage_images`) and read by one function
(`targets`) in a child process with limits of time and memory (`case`, `run`). Hypothesis draws the cases of a block,
and shrinks one that fails.

`tests/fuzz/test_damaged_files.py` runs a block of every target, `make fuzz` runs 20,000 cases. Property-based tests of
what is written and read back are in the other `test_*.py` beside it.
"""
