"""engine_build."""
