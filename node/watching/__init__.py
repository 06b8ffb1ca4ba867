"""Whether the node is well, and the figures that say so."""
