"""Equations in space alone: elements on boxes, all solved together and divided where needed."""
