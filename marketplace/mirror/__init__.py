"""Other marketplaces behind this one: mirrored over the network, or carried here in one file.

``evidence`` is what is kept of where a release comes from, ``view`` is an upstream as it shows itself at one moment,
``gathering`` checks it and ``marketplace.registry.mirrored`` takes it in; ``syncing`` does so over the network,
``bundle`` in one file.
"""
