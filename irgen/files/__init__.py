"""Files and folders of a project: writing, checking, locking, and where they are."""
