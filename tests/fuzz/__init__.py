"""Coverage-guided fuzzing of everything that reads what strangers wrote: ``make fuzz SECONDS=60``.

Each ``fuzz_<target>.py`` has a ``TestOneInput`` that takes any bytes and fails on a defect only. What
was worth keeping, past crashers above all, lies in ``corpus/<target>/`` and is run by the ordinary
tests, without the fuzzer.
"""
