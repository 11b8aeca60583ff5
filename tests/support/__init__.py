"""What the tests of every part share."""
