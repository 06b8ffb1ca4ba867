"""Networks: the graph that is fitted and the graph that is exported."""
