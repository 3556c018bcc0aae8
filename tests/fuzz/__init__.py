"""Damaged files against every reader: each ends in a value that holds what it promises, or in a SimMATError.

A case is decided by target, seed and number alone: a small valid file (`seeds`), damaged at random but repeatably
(`mutate`), read by one function (`targets`) in a child process with limits of time and memory (`child`, `runner`).

`tests/fuzz/test_damaged_files.py` runs 100 cases of every target, `make fuzz` runs 20,000 and continues where it was
stopped (`journal`). Property-based tests of what is written and read back are in the other `test_*.py` beside it.
"""
