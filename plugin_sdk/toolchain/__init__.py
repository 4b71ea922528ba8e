"""From a plugin's source to its component: ``keelstone plugin build``, as a library.

Compilers are fetched once, pinned by version and digest, into a folder that all plugins share.
"""

from plugin_sdk.toolchain.builder import BuiltComponent, build_plugin, built_component
from plugin_sdk.toolchain.errors import BuildFailed, ToolchainUnavailable
from plugin_sdk.toolchain.fetch import Toolchains, toolchain_folder
from plugin_sdk.toolchain.world import component_imports, compose_world

__all__ = [
    "BuildFailed",
    "BuiltComponent",
    "ToolchainUnavailable",
    "Toolchains",
    "build_plugin",
    "built_component",
    "component_imports",
    "compose_world",
    "toolchain_folder",
]
