"""brewlens: trace how a language model comes to an answer."""
