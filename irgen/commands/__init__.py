"""Commands of the command line: one file each, its options beside it."""
