"""Models of what must hold whatever the timing, explored exhaustively."""
