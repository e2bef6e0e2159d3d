"""The two REST APIs, one Flask application factory for both: `text` takes and shows messages, `search` finds them."""
