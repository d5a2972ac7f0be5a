"""What is done with vectors and scores between a query and its neighbours: pure functions."""
