//! Logging in to a backend: the connection phase as a client.
