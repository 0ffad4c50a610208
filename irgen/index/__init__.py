"""Live index: a folder whose images are added, replaced and removed while it is searched."""
