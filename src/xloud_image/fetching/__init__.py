"""Files from web servers by URLs that somebody gave. No image record and no database is known here."""
