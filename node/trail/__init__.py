"""What the node puts into the audit trail, its heads outside the ledger, and who is told of it."""
