"""What a user does with the index that is served: search, add, remove, info, compact."""
