//! Connecting to a backend address.
