"""Tables of rows: reading them, describing them, logging predictions and labels."""
