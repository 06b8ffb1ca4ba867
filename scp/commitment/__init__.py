"""Storage Commitment (PS3.4 J) in both directions: requests are made of us, answers are given to us."""
