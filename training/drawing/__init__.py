"""Synthetic radiographs of invented people: the samples that the product ships."""
