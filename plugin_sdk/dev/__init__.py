"""``keelstone plugin dev``: from a saved file to the plugin active in a local platform, again and again.

``loop`` watches, builds and activates; ``places`` and ``frames`` find the author's line in what went
wrong; ``view`` and ``lines`` show it, to people and to programs. The platform is reached through a
:class:`~plugin_sdk.terminal.PlatformConnection` and knows nothing of all this but its development door.
"""
