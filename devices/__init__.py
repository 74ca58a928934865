"""What each machine can do."""
