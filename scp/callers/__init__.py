"""What is learned of who calls: how they send (arrivals, habits), and what they do not get (refused)."""
