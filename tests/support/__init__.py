"""What the tests share: waiting without sleeping, real peers, real data, synthetic DX."""
