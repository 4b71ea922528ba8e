"""Plugins as OCI artifacts: in a folder (``layout``) or at a registry (``remote``), laid out as WebAssembly tools do.

The component is an artifact by itself, in the layout of the CNCF's TAG Runtime, so that those tools pull it. The
signed package with all that proves it (a bundle) is a second one that refers to the first, so that pulling a plugin
verifies as everywhere else.
"""
