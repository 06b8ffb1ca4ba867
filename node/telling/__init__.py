"""What happened, in words: the same on the page, in the terminal and in answers to programs."""
