"""Generators of typed payloads, one module per language, all from plugin_sdk.toolchain.payloads."""
