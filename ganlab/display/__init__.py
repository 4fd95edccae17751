"""Shows the progress of a command or function to a person: in a terminal or in a notebook."""
