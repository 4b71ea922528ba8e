"""The kernel: hooks, plugins, activations and events, and nothing else. Depends on nothing of ours."""
