"""Trained weights in, a model package out: graph, calibration, gate, card, figures, hashes."""
