"""The node's processes: started, confined, kept alive, given work, and stopped in order."""
