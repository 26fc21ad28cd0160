"""Talks to Google Cloud's REST APIs: sessions, credentials, errors, uploads."""
