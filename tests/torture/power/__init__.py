"""What a power cut leaves: a shim that traces (shim.c) and a model that forgets (replay.py)."""
