"""How a constraint holds on points that nobody tried: for certain, or with what probability."""
