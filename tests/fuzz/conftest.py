"""Settings of hypothesis."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from fuzz.values import EXAMPLES

settings.register_profile(
    "simmat",
    max_examples=EXAMPLES,
    derandomize=not os.environ.get("FUZZ_EXAMPLES"),
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("simmat")
