"""The steps from one state of the database to the next. They run through `db.schema`, never by themselves."""
