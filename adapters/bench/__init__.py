"""The load generator: what to ask, asking it, and what the answers' times say."""
