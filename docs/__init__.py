"""The documents. Only the generator of the reference pages is code: ``python -m docs.generate``."""
