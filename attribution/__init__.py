"""Energy of batched LLM requests, shared out by Shapley value: arrays of batches in, shares out."""
