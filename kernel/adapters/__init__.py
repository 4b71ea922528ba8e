"""Adapters: one per port and technology, chosen by one address each."""
