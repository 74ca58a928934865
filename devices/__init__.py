"""Which machine this is, what each board can do, and what a board tells of itself."""
