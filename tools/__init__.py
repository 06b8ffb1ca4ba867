"""What writes documents about the house from the house itself. Not part of what is installed."""
