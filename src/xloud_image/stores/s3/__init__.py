"""Stores of type s3: Amazon's S3 and whatever speaks like it."""
