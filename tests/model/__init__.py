"""Models of properties that hold in any timing, explored exhaustively."""
