"""Known weaknesses of what runs here: the marketplace's advisories, and whom they affect."""
