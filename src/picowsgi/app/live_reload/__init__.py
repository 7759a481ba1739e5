"""Live reload: pages in the browser load themselves again when the application has changed."""
