"""Let clients in: tokens, limits of requests, and the addresses that may be fetched for them."""
