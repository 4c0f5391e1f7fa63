"""The page of a report: verdicts first, then down to the pictures that decide them."""
