"""Measurements side by side with a named baseline: ``make bench``. Nothing here is asserted in tests."""
