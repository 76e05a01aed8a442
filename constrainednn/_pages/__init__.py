"""Pages to send to somebody: made from data alone, without the code that was solved."""
