"""The alarm about who stands behind an update: another signer, lost provenance, another owner."""
