"""Which plugins may come in, and with what: policies as data, and approvals of exceptions."""
