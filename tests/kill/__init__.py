"""Commands killed at random moments: what is left is whole, and the next call ends as one that was never stopped.

`make kill` runs 50 of them (`run.py`); `tests/kill/test_random_kills.py` a few. Kills at chosen places of a training
are in `tests/training/test_resume.py`.
"""
