"""Many recipes that differ in one thing: the same splits, the same budget, one table."""
