"""The live index on disk: a folder that takes in, replaces and gives up images while it is
searched."""
