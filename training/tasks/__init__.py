"""What each command does for a recipe of each task, in one table: training/tasks/table.py."""
