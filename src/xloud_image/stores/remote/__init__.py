"""Parts of the http store: which addresses may be reached, and what answers mean. No bytes move here."""
