"""What a run will do, take and need, estimated before anything is spent."""
