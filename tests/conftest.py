"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of the code: no test is judged by time.
settings.register_profile("keelstone", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("keelstone")
