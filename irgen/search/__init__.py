"""Search over code sequences: trie, beam search, brute force, ranking. It touches no disk."""
