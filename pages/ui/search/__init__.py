"""Find it for me: goals, the search of a session, what it found."""
