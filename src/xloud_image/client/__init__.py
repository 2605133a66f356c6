"""The other side of the Image API: what the words for people are made of. Works with any image service that speaks the
API, and knows no command line, database or store. Threads, not an event loop: whoever uses it waits for it anyway.
"""
