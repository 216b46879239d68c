"""What people say of answers: their ratings and votes, and how far they agree."""
