"""`ecg-vlm serve`: the page and the API on a person's own machine.

A request goes downward through these files: `security` (who may ask, and how much), `app` (the routes), `schema` (what
is asked), `service` (queue, pages, model), `work_queue` (who is next), `reading_process` and `page_files` (from an
upload to a page that was read), `models` or `remote_model` (the answers). `chat` is OpenAI's shape of the same.
"""
