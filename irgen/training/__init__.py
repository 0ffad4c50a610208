"""Training loops of tokenizer and retriever: batches in, weights and a history out."""
