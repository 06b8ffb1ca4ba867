"""Make the receiver suffer and count what it loses: `python -m tests.torture`. See docs/torture.md."""
