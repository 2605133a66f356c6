"""What clients and operators can ask of the service, one function each. No HTTP, no SQL, no bytes moved by hand."""
