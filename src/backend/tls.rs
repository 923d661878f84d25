//! TLS toward the backend.
