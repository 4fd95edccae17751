"""Numbers that can be trusted: each with its protocol, its uncertainty and references to read it against."""
