"""What `opentriage doctor` looks at."""
