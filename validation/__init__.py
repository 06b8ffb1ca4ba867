"""Evidence: what a model package is worth on labelled images, through the code path of the node. Imports no torch."""
