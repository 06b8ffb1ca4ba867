"""One recipe in, trained weights out."""
