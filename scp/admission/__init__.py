"""What must be true of an instance before its sender is answered 0x0000 (admitter.py), step by step."""
