//! The application side: listeners, TLS, the connection phase, credentials.
