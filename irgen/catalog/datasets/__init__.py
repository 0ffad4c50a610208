"""Published sets as their publishers lay them out: one reader a set, all of one signature."""
