"""PostgreSQL: the tables, the statements that write them (commands) and read them (queries), and the migrations."""
