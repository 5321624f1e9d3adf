"""Jobs: tasks by name, done in child processes with limits, in turn, found again and never done twice."""
