"""Games without a closed form, to be sampled: a file a game."""
