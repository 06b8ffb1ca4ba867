"""Image sets: what is read, who belongs to which split, what is drawn next."""
