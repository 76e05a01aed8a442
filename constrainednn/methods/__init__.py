"""Methods: how parameters move. They see residuals, never problems."""
