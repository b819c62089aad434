"""What a run will do, take and need, said before anything is spent."""
