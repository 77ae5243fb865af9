"""Choose the winner of a search among its best trials, train it for the last time, and measure it on the test split."""
