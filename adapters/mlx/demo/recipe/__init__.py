"""How the embedded demo model is made: corpus, tokenizer, training and evaluation."""
