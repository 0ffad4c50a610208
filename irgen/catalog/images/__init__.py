"""Images from their files to pixels, whatever the kind of file."""
