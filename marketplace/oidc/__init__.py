"""Identity tokens of CI jobs: fetching an issuer's keys within bounds, checking a token, and getting one in a job."""
