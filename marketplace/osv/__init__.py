"""Known weaknesses of what plugins are linked from: exports in the OSV format, kept and asked offline."""
