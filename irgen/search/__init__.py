"""Search over identifiers: trie, beam, exact scan, ranking. Nothing here touches a disk."""
