"""From a source of images to one table of checked, labelled images, whatever the source was."""
