"""The `ovsnet` command: nouns and verbs on the typed client.

An edge: it turns arguments into calls of `ovsnet.client` and answers into tables or JSON, and errors into exit codes.
What is slow to import (http.client, rich) is imported where it is needed.
"""
