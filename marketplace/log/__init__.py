"""The transparency log: a Merkle tree over everything that the marketplace ever changed, which anybody can follow."""
