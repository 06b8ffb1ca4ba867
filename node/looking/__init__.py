"""Between the ledger's jobs and the models; uploads, pictures, and what other settings would have decided."""
