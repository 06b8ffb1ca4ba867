"""Associations on a socket. engine.py is the seam; native_*.py and pynetdicom_*.py are the two engines behind it."""
