"""The panels that figures of a solution are made of, each into axes that are given."""
