"""The marketplace: registry, signing, verification and search; a service of its own."""
