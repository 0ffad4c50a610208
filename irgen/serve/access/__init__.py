"""Who may do what, how much and how often: tokens, rates, and which addresses are fetched."""
