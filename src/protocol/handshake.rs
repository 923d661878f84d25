//! Greeting, handshake response, TLS request.
