"""Configuration as Prefect keeps it, and opening real things from it; Prefect itself is imported only when used."""
