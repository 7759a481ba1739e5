"""Raw requests as data (`cases/`), their parser (`corpus`), and the tests that send them."""
