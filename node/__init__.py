"""Wires the stages together, runs them as processes, and shows what happens. Imports all; imported by none."""
