"""The doors: REST, GraphQL, the command line; and ``bootstrap``, the only composition root."""
