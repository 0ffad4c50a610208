"""Sources of images: folders, archives, lists, buckets and web servers."""
