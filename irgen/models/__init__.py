"""Encoder, quantiser, tokenizer, retriever: modules and losses. Nothing here touches a disk."""
