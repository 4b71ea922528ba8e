"""Upgrades on trial: shadow, canary, windows, channels, preflight."""
