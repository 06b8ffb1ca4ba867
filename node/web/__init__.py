"""What the web role serves: pages for people, an interface for programs, health and metrics."""
