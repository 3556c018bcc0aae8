"""Settings of hypothesis, for tests of what is written and read back, with any values."""

from __future__ import annotations

import os

from document_values import EXAMPLES
from hypothesis import HealthCheck, settings

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
