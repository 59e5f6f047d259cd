"""What dstack specifies: pure, no network, no clock but an argument."""
