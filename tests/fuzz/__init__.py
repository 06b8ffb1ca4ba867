"""Fuzzing what a stranger's bytes reach first: the PDU parser, the command-set reader, the structural walker, and a
whole association on a live receiver. The checked-in corpus always runs; `python -m tests.fuzz` is the long form."""
