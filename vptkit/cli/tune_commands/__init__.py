"""Commands of tune."""
