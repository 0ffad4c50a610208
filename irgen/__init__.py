"""IRGen: generative image retrieval as a reproducible data-and-training workflow.

An image gets a short identifier of discrete codes from a semantic tokenizer; a retriever reads a
query image and predicts the identifier of its nearest neighbour; beam search over a trie of the
database's identifiers returns the top k without scanning the database (arXiv 2303.10126).

Shapes, the same letters everywhere:

    B  batch                N  database images      Q  queries
    D  feature width        M  code length          L  codebook size
    W  beam width           P  patches (tokens)     k  cut-off
"""

__version__ = "0.1.0"
