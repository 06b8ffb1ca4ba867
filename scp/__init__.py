"""Receive: association -> durable instance -> answer.

network/     PS3.8 and PS3.7 on a socket: two engines behind one seam (engine.py), limits, TLS
admission/   the acknowledgement contract: what must be true of an instance before 0x0000
callers/     what is learned of who calls: how they send, what they do not get
commitment/  what we are asked to promise, and what we are promised (Storage Commitment)
receiver.py  wires them
"""
